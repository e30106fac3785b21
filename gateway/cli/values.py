"""Values of arguments, for `argparse`. Each raises `argparse.ArgumentTypeError`."""

from __future__ import annotations

import argparse
import ipaddress

PAGE = 500
"""How many clients or users are read from the store at once."""


def duration(text: str) -> float:
    """Read a duration above 0, such as 5m; in seconds."""
    from gateway.units import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"must be longer than 0, not {text!r}")
    return seconds


def positive(text: str) -> int:
    """Read a whole number from 1."""
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return number


def ip_address(text: str) -> str:
    """Read an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an IP address, not {text!r}") from None
    return text


def add_limit_argument(parser: argparse.ArgumentParser) -> None:
    """Let a list be shown in parts."""
    parser.add_argument(
        "--limit", metavar="N", type=positive, help="list this many at most (default: all)"
    )
    parser.add_argument(
        "--after", metavar="ID", type=utf8_text, default="", help="list those that follow this one"
    )


def page_size(options: argparse.Namespace, listed: int) -> int:
    """How many to read next, of a list that `add_limit_argument` limits; 0 at its end."""
    return PAGE if options.limit is None else min(PAGE, options.limit - listed)


def utf8_text(argument: str) -> str:
    """Read text; bytes that are not UTF-8 are none."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("must be UTF-8 text") from None
    return argument
