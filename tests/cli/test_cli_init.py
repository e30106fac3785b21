"""`gateway init`: a configuration to begin with, which overwrites nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import main
from gateway.config import load_config


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATEWAY_CONFIG", raising=False)
    return tmp_path


def test_configuration_is_sound_and_its_secret_is_not_in_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init"]) == 0
    shown = capsys.readouterr().out
    secret = (directory / "registration-token").read_text().strip()
    assert len(secret) >= 43
    assert secret not in shown + (directory / "gateway.yaml").read_text()
    assert (directory / "registration-token").stat().st_mode & 0o777 == 0o600
    token = load_config(directory / "gateway.yaml").provider.registration.token
    assert token is not None
    assert token.get_secret_value() == secret
    # What is to be typed next works as shown.
    for line in shown.partition("Next:")[2].splitlines():
        if line.startswith("  gateway ") and "run" not in line:
            assert main(line.split()[1:]) == 0


def test_configuration_is_for_the_service_that_is_named(directory: Path) -> None:
    target = "http://[::1]:3000"
    assert main(["init", "--upstream", target, "-c", "other.yaml"]) == 0
    assert load_config(directory / "other.yaml").upstreams["service"].targets == [target]


@pytest.mark.parametrize("name", ["gateway.yaml", "registration-token"])
def test_nothing_is_overwritten(
    name: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / name).write_text("mine")
    status = main(["init"])
    assert (directory / name).read_text() == "mine"
    output = capsys.readouterr()
    assert "exists already" in output.out + output.err
    if name == "gateway.yaml":
        assert status == 1
        assert not (directory / "registration-token").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ["--upstream", "localhost:3000"],
            "--upstream 'localhost:3000': expected http://host:port",
        ),
        (["-c", "nowhere/gateway.yaml"], "can't be written: No such file or directory"),
    ],
)
def test_what_can_not_be_written_is_named(
    arguments: list[str], problem: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", *arguments]) == 1
    assert problem in capsys.readouterr().err
    assert list(directory.iterdir()) == []


def test_missing_configuration_leads_to_init(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 1
    assert "`gateway init` writes a configuration" in capsys.readouterr().err
