"""Print results of commands, in colour on a terminal, and read secrets without echo."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TextIO

from gateway.suggestions import did_you_mean

STDIN = "-"
"""The file name that stands for standard input."""


class CommandError(Exception):
    """A command failed; the text says why."""


STYLES = {"bold": 1, "red": 31, "green": 32, "yellow": 33}


def paint(
    text: str, style: Literal["bold", "red", "green", "yellow"], stream: TextIO | None = None
) -> str:
    """Colour a text for a stream (default: standard output), if that is a terminal and `NO_COLOR`
    is not set (no-color.org)."""
    stream = stream or sys.stdout
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if is_plain or not stream.isatty() else f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns as wide as they need."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(paint(line.rstrip(), "bold") if row is header else line.rstrip())


def print_record(record: dict[str, object]) -> None:
    """Print a record, a line for each field."""
    width = max(map(len, record))
    for name, value in record.items():
        shown = ("yes" if value else "no") if isinstance(value, bool) else value
        print(f"{name.ljust(width)}  {shown}")


def count(number: int, noun: str) -> str:
    """Count something: `1 route`, `2 routes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_time(at: float) -> str:
    """Format a Unix time for display."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def near_file(path: Path) -> str:
    """Return the end of an error text that names a file like one that is not there."""
    try:
        names = [] if path.exists() else [one.name for one in path.parent.iterdir()]
    except OSError:
        return ""
    return did_you_mean(path.name, names)


def read_secret(path: str) -> str:
    """The text in a file, `-` for standard input; arguments would show in the process list.

    Raises `CommandError`.
    """
    try:
        text = sys.stdin.read() if path == STDIN else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise CommandError(f"{path} can't be read: {reason}{near_file(Path(path))}") from None
    text = text.strip()
    if not text:
        raise CommandError(f"{'standard input' if path == STDIN else path} is empty")
    return text
