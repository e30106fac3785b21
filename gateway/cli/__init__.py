"""The command line."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.cli import (
    admins,
    clients,
    configuration,
    explain,
    imports,
    migrate,
    tokens,
    users,
)
from gateway.cli.output import CommandError, print_json
from gateway.config import ConfigError
from gateway.oauth.errors import OAuthError
from gateway.oauth.models import StoreError

DEFAULT_CONFIG = "gateway.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 1 where it failed, 2 for a usage error."""
    options = make_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that lacks a letter of a client's name shall still show the rest.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = options.command(options)
        # Here rather than at the interpreter's end, where nobody could catch the error.
        sys.stdout.flush()
    except ConfigError as error:
        problem = str(error)
    except CommandError as error:
        problem = f"gateway: {error}"
    except OAuthError as error:
        problem = f"gateway: {error.description}"
    except StoreError as error:
        problem = f"gateway: the store: {error}"
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough.
        _discard_output()
        return 0
    except OSError as error:
        _discard_output()
        problem = f"gateway: {error.strerror or error}"
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    else:
        return status
    print(problem, file=sys.stderr)
    return 1


def _discard_output() -> None:
    # What is still buffered would fail again as the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Takes options by their full name only: nobody who types `--secret VALUE` means
    `--secret-file VALUE`, and a secret must not be taken for the name of a file."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="gateway",
        description="An API gateway for machine-to-machine traffic that is its own OAuth 2.0 "
        "provider.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    with_config = _Parser(add_help=False)
    with_config.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(os.environ.get("GATEWAY_CONFIG", DEFAULT_CONFIG)),
        help=f"configuration file (default: $GATEWAY_CONFIG, or {DEFAULT_CONFIG})",
    )
    with_json = _Parser(add_help=False)
    with_json.add_argument("--json", action="store_true", help="print JSON")

    configuration.add_commands(commands, with_config, with_json)
    explain.add_command(commands, with_config, with_json)
    clients.add_commands(commands, with_config, with_json)
    tokens.add_commands(commands, with_config, with_json)
    admins.add_commands(commands, with_config, with_json)
    users.add_commands(commands, with_config, with_json)
    imports.add_commands(commands, with_config, with_json)
    migrate.add_commands(commands, with_config, with_json)

    version = commands.add_parser("version", parents=[with_json], help="print the version")
    version.set_defaults(command=_print_version)
    return parser


def _print_version(options: argparse.Namespace) -> int:
    if options.json:
        print_json({"version": __version__})
    else:
        print(__version__)
    return 0
