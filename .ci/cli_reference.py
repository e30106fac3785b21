"""Write cli.md from the parser of the commands.

python .ci/cli_reference.py            # rewrites it
python .ci/cli_reference.py --check    # exits with 1 where it is out of date
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# The help texts name these, and the reference must not depend on who writes it.
for name in ("GATEWAY_CONFIG", "XDG_CONFIG_HOME"):
    os.environ.pop(name, None)

from gateway.cli import make_parser  # noqa: E402
from gateway.cli.parser import EXIT_STATUS, children, summaries  # noqa: E402

REFERENCE = ROOT / "docs" / "reference" / "cli.md"
INTRODUCTION = """\
# Commands

Written by `make reference` from the commands themselves; `gateway COMMAND --help` prints the same.

Commands that change clients, users or tokens write to the store directly and work beside a
running gateway. `gateway manpage` prints this page for `man`, `gateway completion` the completion
for a shell.

Two options are common to many commands: `-c FILE` (`--config FILE`) names the configuration file,
by default `$GATEWAY_CONFIG`, or `gateway.yaml`; `--json` prints JSON.

| Exit status | Meaning |
|---|---|
{statuses}
{summary}
"""
COMMON = {"--config", "--json"}

Command = tuple[str, str, argparse.ArgumentParser]


def commands(parser: argparse.ArgumentParser, path: str, text: str) -> Iterator[Command]:
    """Every command that does something: its name, what it does, its parser."""
    children = list(_children(parser))
    if not children:
        yield path, text, parser
    for name, help_text, inner in children:
        yield from commands(inner, f"{path} {name}".strip(), help_text)


def _children(parser: argparse.ArgumentParser) -> Iterator[Command]:
    texts = summaries(parser)
    for name, inner in children(parser):
        yield name, texts[name], inner


def render_reference() -> str:
    """docs/reference/cli.md."""
    statuses = "".join(f"| {status} | {meaning} |\n" for status, meaning in EXIT_STATUS.items())
    parts = [INTRODUCTION.format(statuses=statuses, summary=render_summary())]
    group = ""
    for path, text, parser in commands(make_parser(), "", ""):
        first, _, rest = path.partition(" ")
        if rest and first != group:
            parts.append(f"## gateway {first}\n\n")
        group = first
        parts.append(f"{'###' if rest else '##'} gateway {path}\n\n{_sentence(text)}\n\n")
        if parser.description and parser.description != _sentence(text):
            parts.append(f"{' '.join(parser.description.split())}\n\n")
        parts.append(f"```\n{_usage(path, parser)}\n```\n\n")
        rows = list(_rows(parser))
        if rows:
            parts.append("| Argument | Meaning |\n|---|---|\n" + "".join(rows) + "\n")
        if parser.epilog:
            parts.append(f"```\n{parser.epilog.strip()}\n```\n\n")
    return "".join(parts).rstrip() + "\n"


def render_summary() -> str:
    """The table of commands."""
    rows = []
    for name, text, parser in _children(make_parser()):
        below = [path.replace("|", "") for path, _, _ in commands(parser, "", text) if path]
        shown = f"[`gateway {name}`](#gateway-{name})"
        shown += f": `{'`, `'.join(below)}`" if below else ""
        rows.append(f"| {shown} | {_escape(text)} |\n")
    return f"| Command | Does |\n|---|---|\n{''.join(rows)}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _usage(path: str, parser: argparse.ArgumentParser) -> str:
    """On lines of a width of its own, not of the terminal's."""
    words = [f"gateway {path}"]
    for action in _arguments(parser):
        shown = "|".join(action.option_strings) if action.option_strings else ""
        value = _value(action)
        text = f"{shown} {value}".strip()
        words.append(text if action.required else f"[{text}]")
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) > 95:
            lines.append("   ")
        lines[-1] += f" {word}"
    return "\n".join(lines)


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Options, then positional arguments; without --help, which all have."""
    known = [
        one
        for one in parser._actions
        if "--help" not in one.option_strings and one.help != argparse.SUPPRESS
    ]
    return sorted(known, key=lambda one: not one.option_strings)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return ""
    name = action.metavar if isinstance(action.metavar, str) else None
    if name is None and action.choices:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    return name or action.dest.upper()


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in _arguments(parser):
        if COMMON & set(action.option_strings):
            continue
        shown = ", ".join(f"`{option}`" for option in action.option_strings)
        value = _value(action)
        if value:
            shown = f"{shown} `{value}`".strip()
        yield f"| {_escape(shown)} | {_escape(action.help or '')} |\n"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("%%", "%").replace("<", "&lt;")


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    rendered = render_reference()
    if REFERENCE.exists() and REFERENCE.read_text() == rendered:
        return 0
    print(f"{REFERENCE.relative_to(ROOT)} is {'out of date' if options.check else 'written'}")
    if not options.check:
        REFERENCE.write_text(rendered)
    return 1 if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
