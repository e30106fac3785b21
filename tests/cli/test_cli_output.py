"""What commands print, on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.cli.output import paint


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("ok", "green", Terminal()) == "\x1b[32mok\x1b[0m"
    assert paint("ok", "green", io.StringIO()) == "ok"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("ok", "green", Terminal()) == "ok"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert paint("ok", "green", Terminal()) == "ok"


def test_schema_is_written_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gateway.schema.json"
    assert main(["schema", "-o", str(path)]) == 0
    assert json.loads(path.read_text())["$id"]
    assert f"# yaml-language-server: $schema={path}" in capsys.readouterr().out
    assert main(["schema", "-o", str(tmp_path / "none" / "x.json")]) == 1
    assert "can't be written" in capsys.readouterr().err


def test_where_a_new_client_sends_its_users_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "store: sqlite:///./gateway.db\n"
        "provider: {issuer: 'https://id.example', grant_types: [authorization_code],\n"
        "  registration: {mode: 'off'}}\n"
    )
    command = ["client", "create", "web", "--grant-type", "authorization_code"]
    uri = ["--redirect-uri", "https://web.example/callback"]
    assert main([*command, *uri, "-c", str(config)]) == 0
    printed = capsys.readouterr().out
    assert "https://id.example/authorize?response_type=code&client_id=web&" in printed
    assert "`gateway user create` adds a user" in printed
