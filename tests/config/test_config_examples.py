"""`gateway check` accepts each example of config/, once the files that it names are there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.jose_values import make_certificate

from gateway.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    path.relative_to(ROOT)
    for path in sorted((ROOT / "config").rglob("*.yaml"))
    if path.name != "envoy.yaml"  # which is Envoy's
]
ENVIRON = {
    "ISSUER": "https://gateway.example",
    "ADMIN_TOKEN": "an-admin-token",
    "REGISTRATION_TOKEN": "a-registration-token",
    "SEAL_KEY": "0123456789" * 4,
}
MACHINE = ("/etc/gateway/tls", "/run/secrets/gateway", "/var/lib/gateway")
"""Directories of a machine that the examples are written for."""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """These directories, with certificates and secrets, below another root."""
    for name in MACHINE:
        (tmp_path / name[1:]).mkdir(parents=True)
    pair = make_certificate(tmp_path, "gateway.example")
    for name in ("tls", "gateway", "internal-ca", "clients"):
        for made, suffix in ((pair.cert, "crt"), (pair.key, "key")):
            copied = tmp_path / "etc/gateway/tls" / f"{name}.{suffix}"
            shutil.copy(made, copied)
            copied.chmod(0o600)
    for name in ("admin-token", "billing", "registration-token", "seal-key"):
        (tmp_path / "run/secrets/gateway" / name).write_text("0123456789" * 4 + "\n")
    shutil.copytree(ROOT / "config" / "clients", tmp_path / "clients")
    return tmp_path


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_check_accepts_the_example(
    example: Path,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    text = (ROOT / example).read_text()
    for name in MACHINE:
        text = text.replace(name, f"{machine}{name}")
    path = machine / example.name
    path.write_text(text)
    status = main(["check", str(path)])
    shown = capsys.readouterr()
    assert status == 0, shown.err
    assert shown.out.startswith(f"{path}: ok (")
    # What is in use here is of no interest; nor is what an example shows on purpose.
    allowed = ("already in use", "permission denied", "any peer can register")
    for warning in shown.err.splitlines():
        assert any(text in warning for text in allowed), warning
