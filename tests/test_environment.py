"""The environment that `make run` sets up: small, quiet, and without a compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.deadlines import scaled
from support.programs import needs
from support.tiers import slow

ROOT = Path(__file__).parents[1]


def set_up(directory: Path, lock: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a lock file of that text."""
    (directory / "some.lock").write_text(lock)
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "environment.py", directory / "venv",
         directory / "some.lock", "--only-binary"],
        capture_output=True, text=True, timeout=scaled(300),
    )  # fmt: skip


@needs("make")
def test_running_needs_no_packages_for_development() -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", "run"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "requirements.lock --only-binary" in printed
    assert "requirements-dev.lock" not in printed
    assert "wheel" not in printed


@slow("environment")
def test_environment_has_the_command_of_the_checkout(tmp_path: Path) -> None:
    done = set_up(tmp_path, "")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for line in done.stdout.splitlines():
        assert line.startswith(("Making", "Installing", "Done"))
    script = (tmp_path / "venv" / "bin" / "gateway").read_text()
    assert "-m gateway" in script
    python = tmp_path / "venv" / "bin" / "python"
    found = subprocess.run(
        [python, "-P", "-c", "import gateway; print(gateway.__path__)"],
        cwd=tmp_path, env={}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(ROOT / "gateway") in found.stdout


@slow("environment")
def test_failure_of_pip_shows_the_end_of_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    done = set_up(tmp_path, f"nothing==1 \\\n    --hash=sha256:{'0' * 64}\n")
    assert done.returncode != 0
    assert "No matching distribution found for nothing==1" in done.stdout
    assert "all of its output is in" in done.stdout
