"""The command line.

The modules of the commands import nothing that takes long until a command runs.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence

from gateway import __version__
from gateway.app.process import open_standard_descriptors
from gateway.cli import (
    admins,
    api_keys,
    backup,
    clients,
    completion,
    configuration,
    explain,
    imports,
    init,
    keys,
    manual,
    migrate,
    running,
    tokens,
    users,
)
from gateway.cli.examples import EXAMPLES
from gateway.cli.output import CommandError, near_file, paint, print_json
from gateway.cli.parser import (
    Parser,
    complete,
    config_parent,
    default_config,
    json_parent,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 1 where it failed, 2 for a usage error."""
    open_standard_descriptors()
    options = make_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that lacks a letter of a client's name shall still show the rest.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = options.command(options)
        # Here rather than at the interpreter's end, where the error could not be caught.
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough.
        _discard_output()
        return 0
    except OSError as error:
        _discard_output()
        problem = f"gateway: {error.strerror or error}"
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        expected = _describe(error, options)
        if expected is None:
            raise
        problem = expected
    else:
        return status
    print(problem, file=sys.stderr)
    return 1


def _describe(error: Exception, options: argparse.Namespace) -> str | None:
    """Say what went wrong; None for an error that a command does not raise by itself."""
    from gateway.config import ConfigError
    from gateway.oauth.errors import OAuthError
    from gateway.oauth.models import StoreError

    match error:
        case ConfigError() if not options.config.exists():
            hint = near_file(options.config).removeprefix("; ")
            return f"{error}\n{hint or '`gateway init` writes a configuration to begin with'}"
        case ConfigError():
            return str(error)
        case CommandError():
            return f"{_name()}: {error}"
        case OAuthError():
            return f"{_name()}: {error.description}"
        case StoreError():
            return f"{_name()}: the store: {error}"
    return None


def _name() -> str:
    return paint("gateway", "red", sys.stderr)


def _discard_output() -> None:
    # What is still buffered would fail again as the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog="gateway",
        description="An API gateway for machine-to-machine traffic that is its own OAuth 2.0 "
        "provider.",
        epilog="`gateway help COMMAND` shows what a command does, and its options.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(config=default_config())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    with_config, with_json = config_parent(), json_parent()

    init.add_command(commands, with_config)
    configuration.add_commands(commands, with_config, with_json)
    explain.add_command(commands, with_config, with_json)
    running.add_commands(commands, with_config, with_json)
    clients.add_commands(commands, with_config, with_json)
    tokens.add_commands(commands, with_config, with_json)
    admins.add_commands(commands, with_config, with_json)
    users.add_commands(commands, with_config, with_json)
    imports.add_commands(commands, with_config, with_json)
    migrate.add_commands(commands, with_config, with_json)
    backup.add_commands(commands, with_config)
    api_keys.add_commands(commands, with_config, with_json)
    keys.add_commands(commands, with_config, with_json)

    completion.add_command(commands, parser)
    manual.add_command(commands, parser)
    version = commands.add_parser(
        "version",
        parents=[with_json],
        help="print the version; as JSON, which native code is in use, and the HTTP/2 engine",
    )
    version.set_defaults(command=_print_version)
    requested = commands.add_parser("help", help="show the help of a command")
    requested.add_argument("topic", metavar="COMMAND", nargs="*", help="such as: client create")
    requested.set_defaults(command=lambda options: _help(parser, options))
    complete(parser, EXAMPLES)
    return parser


def _help(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    parser.parse_args([*options.topic, "--help"])
    return 0


def _print_version(options: argparse.Namespace) -> int:
    if options.json:
        from gateway import codec
        from gateway.http.h2 import describe_engine

        print_json(
            {
                "version": __version__,
                "compiled": codec.is_compiled(),
                "codec": codec.IS_NATIVE,
                "python": ".".join(map(str, sys.version_info[:3])),
                "http2": describe_engine(),
            }
        )
    else:
        print(__version__)
    return 0
