"""A configuration, and commands on it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from support.commands import Run
from support.running_gateway import make_config

from gateway.cli import main


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(make_config(tmp_path))
    return path


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on `config`; returns exit status, output and errors."""

    def run_one(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        monkeypatch.setenv("GATEWAY_CONFIG", str(config))
        status = main(arguments)
        output = capsys.readouterr()
        return status, output.out, output.err

    return run_one
