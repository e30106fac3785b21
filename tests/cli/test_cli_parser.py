"""What the command line takes, suggests and loads, whatever the command."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import __version__
from gateway.admin.accounts.users import ROLES as KNOWN_ROLES
from gateway.cli import admins, main, make_parser
from gateway.cli.examples import EXAMPLES
from gateway.cli.parser import children

HEAVY = {"aiohttp", "argon2", "asyncio", "cryptography", "jinja2", "pydantic", "redis", "yaml"}
LOADED = """
import contextlib, io, sys
from gateway.cli import main
for arguments in {commands!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(arguments)
print(*sys.modules)
"""
CONFIG = """\
store: sqlite:///./never-made.db
provider: {registration: {mode: "off"}}
"""


def loaded_by(*commands: list[str]) -> set[str]:
    """The modules that a process has loaded after these commands."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(commands=commands)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def leaves(parser: argparse.ArgumentParser, *path: str) -> Iterator[list[str]]:
    """All commands."""
    below = list(children(parser))
    for name, child in below:
        yield from leaves(child, *path, name)
    if not below:
        yield list(path)


COMMANDS = list(leaves(make_parser()))


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["version"]])
def test_version_and_help_load_no_library(arguments: list[str]) -> None:
    assert HEAVY & loaded_by(arguments) == set()


def test_help_of_a_command_loads_nothing_of_what_the_command_needs() -> None:
    assert len(COMMANDS) > 30
    assert HEAVY & loaded_by(*([*command, "--help"] for command in COMMANDS)) == set()


def test_check_of_a_configuration_loads_what_reads_configurations(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG)
    assert HEAVY & loaded_by(["schema"]) == {"pydantic", "yaml"}
    # It derives the values of the packages, too, and needs neither server nor pages for that.
    loaded = loaded_by(["check", "-c", str(config)])
    assert {"aiohttp", "jinja2", "redis", "uvloop"} & loaded == set()


def test_commands_on_the_store_load_no_server_and_no_pages(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG.replace("./never-made.db", f"{tmp_path}/gateway.db"))
    commands = ("client create a", "client list", "token issue a", "admin list", "user list")
    loaded = loaded_by(*([*command.split(), "-c", str(config)] for command in commands))
    assert {"aiohttp", "jinja2", "redis", "uvloop"} & loaded == set()


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_is_an_option_too(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([option])
    assert capsys.readouterr().out == f"gateway {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "FILE", "client", "list"],
        ["client", "-c", "FILE", "list"],
        ["client", "list", "-c", "FILE"],
        ["--config", "FILE", "check"],
        ["--config=FILE", "admin", "token", "list"],
    ],
)
def test_configuration_is_named_before_or_after_the_command(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", "other.yaml")
    assert make_parser().parse_args(arguments).config == Path("FILE")


def test_configuration_that_is_not_named_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", "other.yaml")
    assert make_parser().parse_args(["client", "list"]).config == Path("other.yaml")
    monkeypatch.delenv("GATEWAY_CONFIG")
    assert make_parser().parse_args(["client", "list"]).config == Path("gateway.yaml")


@pytest.mark.parametrize(
    ("arguments", "suggested"),
    [(["clients"], "client"), (["client", "creat"], "create"), (["admin", "tokens"], "token")],
)
def test_mistyped_command_gets_a_suggestion(
    arguments: list[str], suggested: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert f"did you mean {suggested!r}?" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["client"], ["client", "create"]])
def test_help_is_a_command_too(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["help", *command])
    helped = capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert helped == capsys.readouterr().out
    assert " ".join(["usage: gateway", *command]) in helped


def test_roles_of_the_parser_are_those_of_the_accounts() -> None:
    assert admins.ROLES == KNOWN_ROLES


def parser_of(command: list[str]) -> argparse.ArgumentParser:
    """The parser of a command."""
    parser: argparse.ArgumentParser = make_parser()
    for name in command:
        parser = dict(children(parser))[name]
    return parser


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_each_command_says_what_it_does_with_an_example(command: list[str]) -> None:
    parser = parser_of(command)
    assert parser.description
    assert parser.epilog
    for action in parser._actions:
        assert action.help, action.dest
    lines = parser.epilog.splitlines()[1:]
    assert lines
    for line in lines:
        # What is typed behind a pipe, within $(...), or before a redirection.
        typed = re.sub(r".*(?:\| |[$<]\()(?=gateway )|\)$| > .*$", "", line.strip())
        words = shlex.split(typed)
        assert words[: len(command) + 1] == ["gateway", *command]
        assert callable(make_parser().parse_args(words[1:]).command)


def test_examples_are_of_commands_that_there_are() -> None:
    assert EXAMPLES.keys() == {" ".join(command) for command in COMMANDS}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("admin add x", "admin create x"),
        ("user add x --password-stdin", "user create x --password-file -"),
        ("client add x", "client create x"),
        ("token create x", "token issue x"),
        ("token show", "token inspect"),
        ("token delete", "token revoke"),
        ("admin token delete x", "admin token revoke x"),
    ],
)
def test_command_has_the_verbs_that_people_try(old: str, new: str) -> None:
    assert make_parser().parse_args(old.split()) == make_parser().parse_args(new.split())


@pytest.mark.parametrize("options", [[], ["--json"], ["-c", "gateway.yaml"]])
@pytest.mark.parametrize("at", [0, 1])
def test_id_of_a_key_may_begin_as_an_option_does(options: list[str], at: int) -> None:
    kid = "-" + "a_-9" * 10 + "xy"
    words = [kid, *options] if at == 0 else [*options, kid]
    parsed = make_parser().parse_args(["key", "show", *words])
    assert (parsed.key_id, parsed.json) == (kid, "--json" in options)


def test_misspelt_option_is_not_taken_for_an_id(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["key", "show", "kid", "--jsn"])
    assert "--jsn" in capsys.readouterr().err
