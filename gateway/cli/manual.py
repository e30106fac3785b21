"""`gateway manpage`: the manual page of all commands, made from their parser.

The page is in the macros of man(7): `gateway manpage > gateway.1`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from gateway import __version__
from gateway.cli.parser import EXIT_STATUS, children, summaries

ENVIRONMENT = {
    "GATEWAY_CONFIG": "Configuration file where no --config is given.",
}
SEE_ALSO = "The documentation in docs/ of the distribution; `gateway help COMMAND`."


def add_command(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Add the command to the parser, which is the parser of all commands."""
    manual = commands.add_parser(
        "manpage",
        help="print the manual page",
        description="Print the manual page of all commands, for man: "
        "gateway manpage > /usr/local/share/man/man1/gateway.1",
    )
    manual.set_defaults(command=lambda options: _print(parser))


def _print(parser: argparse.ArgumentParser) -> int:
    print("\n".join(render(parser)))
    return 0


def render(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines of the page."""
    yield f'.TH GATEWAY 1 "" "bearer-gateway {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"gateway \\- {_text(_sentence(parser.description or ''))}"
    yield ".SH SYNOPSIS"
    yield ".B gateway"
    yield "[\\fB\\-c\\fR \\fIFILE\\fR] \\fICOMMAND\\fR ..."
    yield ".SH COMMANDS"
    for path, summary, child in _commands(parser):
        yield f".SS gateway {_text(path)}"
        yield _text(child.description or _sentence(summary))
        for action in child._actions:
            if action.help != argparse.SUPPRESS and "--help" not in action.option_strings:
                yield from _argument(action)
        if child.epilog:
            yield from (".PP", ".nf", *map(_text, child.epilog.splitlines()), ".fi")
    yield ".SH EXIT STATUS"
    for status, meaning in EXIT_STATUS.items():
        yield from (".TP", f".B {status}", _text(meaning))
    yield ".SH ENVIRONMENT"
    for name, meaning in ENVIRONMENT.items():
        yield from (".TP", f".B {name}", _text(meaning))
    yield ".SH SEE ALSO"
    yield _text(SEE_ALSO)


def _commands(
    parser: argparse.ArgumentParser, path: str = ""
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Each command that does something: its name, what it does, its parser."""
    texts = summaries(parser)
    for name, child in children(parser):
        inner = f"{path} {name}".strip()
        if summaries(child):
            yield from _commands(child, inner)
        else:
            yield inner, texts[name], child


def _argument(action: argparse.Action) -> Iterator[str]:
    value = "" if action.nargs == 0 else _value(action)
    names = [f"\\fB{_text(name)}\\fR" for name in action.option_strings]
    yield ".TP"
    yield f"{', '.join(names)} {value}".strip()
    yield _text(action.help or "")


def _value(action: argparse.Action) -> str:
    if isinstance(action, argparse.BooleanOptionalAction):
        return ""
    name = action.metavar if isinstance(action.metavar, str) else None
    if name is None and action.choices:
        name = "|".join(map(str, action.choices))
    return f"\\fI{_text(name or action.dest.upper())}\\fR"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _text(text: str) -> str:
    """Escape a text for roff: nothing in it is a macro or an escape."""
    escaped = text.replace("%%", "%").replace("\\", "\\e").replace("-", "\\-")
    escaped = escaped.replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
