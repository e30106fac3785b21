"""`gateway manpage`, read by groff as `man` does; exit statuses of the commands."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from support.deadlines import scaled

from gateway.cli import main, make_parser
from gateway.cli.manual import render
from gateway.cli.parser import EXIT_STATUS


def manual(capsys: pytest.CaptureFixture[str]) -> str:
    """The page as text, as on a terminal without colour."""
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("there is no groff")
    assert main(["manpage"]) == 0
    done = subprocess.run(
        [groff, "-man", "-Tascii", "-ww", "-P-cbou", "-rLL=300n"],
        input=capsys.readouterr().out, capture_output=True, text=True, timeout=scaled(60),
        check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_manual_shows_each_command_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    page = manual(capsys)
    for text in (
        "gateway - An API gateway for machine-to-machine traffic",
        "gateway client create",
        "--scope SCOPES",
        "source <(gateway completion bash)",
        "gateway explain GET /api/orders",
        "-H 'X-Tenant: blue'",
        "EXIT STATUS",
        "GATEWAY_CONFIG",
    ):
        assert text in page
    for status in EXIT_STATUS:
        assert f"\n       {status}" in page


def test_no_line_of_the_manual_is_taken_for_a_macro() -> None:
    known = (".TH", ".SH", ".SS", ".TP", ".B", ".PP", ".nf", ".fi")
    for line in render(make_parser()):
        assert "\n" not in line
        assert not line.startswith(("'",)), line
        assert not line.startswith(".") or line.split()[0] in known, line


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["version"], 0),
        (["check", "-c", "nowhere.yaml"], 1),
        (["client", "list", "--limit", "0"], 2),
        (["frobnicate"], 2),
        (["help", "frobnicate"], 2),
        ([], 2),
    ],
)
def test_exit_status_is_as_documented(arguments: list[str], status: int) -> None:
    assert str(status) in EXIT_STATUS
    assert exit_status(arguments) == status


@pytest.mark.parametrize("command", [[], ["client"], ["admin", "token"]])
def test_command_alone_shows_its_help(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(command) == 2
    shown = capsys.readouterr().err
    assert "\ncommands:\n" in shown
    assert "    create" in shown or "    init" in shown


def exit_status(arguments: list[str]) -> object:
    """The status with which a command ends, however it does."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code
