"""The parser of the command line: what all commands have in common."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

DEFAULT_CONFIG = "gateway.yaml"


class Parser(argparse.ArgumentParser):
    """Takes options by their full name only: a user who types `--secret VALUE` means
    `--secret-file VALUE`, and a secret must not be taken for the name of a file."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": _Formatter, **settings})

    def error(self, message: str) -> NoReturn:
        """Report wrong usage, with the nearest name for one that does not exist, and exit."""
        if found := re.search(r"invalid choice: '([^']*)'", message):
            near = difflib.get_close_matches(found[1], [name for name, _ in children(self)], 1)
            if near:
                message = f"{message}; did you mean {near[0]!r}?"
        super().error(message)


class _Formatter(argparse.HelpFormatter):
    """Fills paragraphs, and leaves texts of several lines, such as examples, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "".join(indent + line for line in text.splitlines(keepends=True))


def children(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the commands right below a parser, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def config_parent() -> Parser:
    """Make the parent of commands that read a configuration."""
    parent = Parser(add_help=False)
    _add_config(parent, f"configuration file (default: $GATEWAY_CONFIG, or {DEFAULT_CONFIG})")
    return parent


def json_parent() -> Parser:
    """Make the parent of commands that can print JSON."""
    parent = Parser(add_help=False)
    parent.add_argument("--json", action="store_true", help="print JSON")
    return parent


def complete(parser: argparse.ArgumentParser) -> None:
    """Complete the parser of all commands: take `-c FILE` before a command, too, and say in the
    help of each command what it does."""
    for group in parser._actions:
        if not isinstance(group, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help or "" for choice in group._choices_actions}
        for name, child in group.choices.items():
            text = helps.get(name, "")
            child.description = child.description or f"{text[:1].upper()}{text[1:]}."
            complete(child)
        _add_config(parser, argparse.SUPPRESS)
        return


def default_config() -> Path:
    """The configuration file where none is named."""
    return Path(os.environ.get("GATEWAY_CONFIG", DEFAULT_CONFIG))


def _add_config(parser: argparse.ArgumentParser, text: str) -> None:
    # No default here: that of a command would replace what was given before the command.
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=text
    )
