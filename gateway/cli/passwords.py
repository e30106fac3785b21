"""How a password comes in: from a file, from standard input, or typed twice at the terminal."""

from __future__ import annotations

import argparse
import getpass
import sys

from gateway.cli.output import STDIN, CommandError, read_secret


def add_password_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        help="file with the password, - for standard input (default: asked for)",
    )
    # As `gateway user` had it first.
    parser.add_argument(
        "--password-stdin", dest="password_file", action="store_const", const=STDIN,
        help=argparse.SUPPRESS,
    )  # fmt: skip


def read_password(options: argparse.Namespace) -> str:
    """Read the password that the options name, or ask for it. Raises `CommandError`."""
    if options.password_file:
        return read_secret(options.password_file)
    if not sys.stdin.isatty():
        raise CommandError("there is no terminal to ask for the password: use --password-file")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise CommandError("the two passwords differ")
    return password
