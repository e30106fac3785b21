"""The parser of the command line: what all commands have in common."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gateway.suggestions import did_you_mean

DEFAULT_CONFIG = "gateway.yaml"
EXIT_STATUS = {
    "0": "Success. `explain`: the request would be forwarded, or get a response below 400. "
    "`status`: the gateway is ready.",
    "1": "A failure, which is reported on standard error. `check`: the configuration can't be "
    "used. `explain`: the request would be rejected. `status`: not ready. `reload`: rejected. "
    "`import`: a client was skipped.",
    "2": "Wrong usage: an unknown command, option or value. `explain`: an invalid request.",
    "130": "Interrupted by Ctrl-C; `run` ends with 0 then, once requests have finished.",
}
"""What the exit statuses mean, of all commands."""

_KEY_ID = re.compile(r"-[\w-]{42}", re.ASCII)
"""A thumbprint of RFC 7638 (43 characters of base64url) that begins with `-`, as one of 64 does. No
option is as long."""


class Parser(argparse.ArgumentParser):
    """Takes options by their full name only: a user who types `--secret VALUE` means
    `--secret-file VALUE`, and a secret must not be taken for the name of a file."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": _Formatter, **settings})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Take the id of a key for a value, even where it begins as an option does."""
        words = list(sys.argv[1:] if args is None else args)
        ids = [word for word in words if _KEY_ID.fullmatch(word)]
        if ids and "--" not in words and not any(_groups(self)):
            words = [*(word for word in words if word not in ids), "--", *ids]
        options, unknown = super().parse_known_args(words, namespace)
        if unknown and not any(_groups(self)):
            # Here, and not by the parser of all commands: these are the options that there are.
            names = [name for action in self._actions for name in action.option_strings]
            near = did_you_mean(next((one for one in unknown if one[:1] == "-"), ""), names)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return options, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Check that a value is one of the choices, and name the nearest one where it is not."""
        if action.choices is not None and value not in action.choices:
            known = ", ".join(map(str, action.choices))
            near = did_you_mean(str(value), map(str, action.choices))
            raise argparse.ArgumentError(
                action, f"invalid choice: {value!r} (choose from {known}){near}"
            )

    def error(self, message: str) -> NoReturn:
        """Report wrong usage, and exit."""
        if message.endswith("required: COMMAND"):
            # `gateway`, or `gateway client`, alone: what there is to choose from.
            self.print_help(sys.stderr)
        super().error(message)


class _Formatter(argparse.HelpFormatter):
    """Fills paragraphs, and leaves texts of several lines, such as examples, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "".join(indent + line for line in text.splitlines(keepends=True))


def children(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the commands right below a parser, by name, but for other names of the same."""
    seen: set[argparse.ArgumentParser] = set()
    for group in _groups(parser):
        for name, child in group.choices.items():
            if child not in seen:
                yield name, child
            seen.add(child)


def _groups(parser: argparse.ArgumentParser) -> Iterator[argparse._SubParsersAction[Any]]:
    """Yield the group of commands right below a parser, if it has any."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield action


def summaries(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the help text of each command right below a parser."""
    # An entry of the list is called "create (add)" where there are two names.
    return {
        entry.dest.partition(" ")[0]: entry.help or ""
        for group in _groups(parser)
        for entry in group._choices_actions
    }


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


def complete(
    parser: argparse.ArgumentParser, examples: Mapping[str, Sequence[str]], path: str = ""
) -> None:
    """Complete the parser of all commands: take `-c FILE` before a command, too, and show in the
    help of each command what it does, and its examples."""
    below = summaries(parser)
    for name, child in children(parser):
        inner = f"{path} {name}".strip()
        child.description = child.description or f"{below[name][:1].upper()}{below[name][1:]}."
        if lines := examples.get(inner):
            child.epilog = "\n".join(["examples:", *(f"  {line}" for line in lines)])
        complete(child, examples, inner)
    if below:
        _add_config(parser, argparse.SUPPRESS)


def default_config() -> Path:
    """The configuration file where none is named."""
    return Path(os.environ.get("GATEWAY_CONFIG", DEFAULT_CONFIG))


def _add_config(parser: argparse.ArgumentParser, text: str) -> None:
    # No default here: that of a command would replace what was given before the command.
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=text
    )
