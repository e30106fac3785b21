"""`gateway init`: write a configuration to begin with."""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path
from typing import Any

from gateway.cli.output import CommandError

TOKEN_FILE = "registration-token"
TOKEN_BYTES = 32
DEFAULT_UPSTREAM = "http://127.0.0.1:9001"
TEMPLATE = """\
# The configuration of a gateway. `gateway check` reports every mistake in it at once; a running
# gateway applies changes of this file by itself. All keys: `gateway schema`, and docs/reference.

listen: {host: 127.0.0.1, port: 8080}   # for clients; host 0.0.0.0 lets other machines in
admin: {host: 127.0.0.1, port: 9090}    # metrics, health and console; not for the public

# Clients and tokens; the path is relative to where the gateway is started. Several replicas share
# a Redis: redis://HOST:6379/0
store: sqlite:///./gateway.db

provider:
  issuer: http://127.0.0.1:8080         # the URL at which clients reach this gateway
  scopes: [read, write]                 # every scope there is
  default_scopes: [read]                # of a token for which none is requested
  registration:                         # who may register clients by POST /createClient:
    mode: token                         # those who know this token (or: off, open)
    token: ${file:registration-token}

upstreams:
  service:
    targets: [UPSTREAM]

routes:
  - name: service
    match: {path: /}                    # every path below it
    upstream: service
    scopes: [read]                      # which a token must have; `auth: none` needs no token
"""


def add_command(commands: Any, with_config: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "init",
        parents=[with_config],
        help="write a configuration to begin with, and its secret",
        description="Write a commented configuration for a service of yours, and beside it a file "
        "with the token that lets clients be registered, which only you can read. Nothing that "
        "exists is overwritten.",
    )
    parser.add_argument(
        "--upstream", metavar="URL", default=DEFAULT_UPSTREAM,
        help=f"where your service listens (default: {DEFAULT_UPSTREAM})",
    )  # fmt: skip
    parser.set_defaults(command=_init)


def _init(options: argparse.Namespace) -> int:
    path: Path = options.config
    text = TEMPLATE.replace("UPSTREAM", json.dumps(options.upstream))
    _check(text, options.upstream)
    if path.exists():
        raise CommandError(f"{path} exists already; nothing was written")
    token = path.parent / TOKEN_FILE
    if _write(token, secrets.token_urlsafe(TOKEN_BYTES) + "\n", mode=0o600):
        print(f"Wrote {token}, readable by you only: it allows registering clients.")
    else:
        print(f"Kept {token}, which exists already.")
    if not _write(path, text, mode=0o666):
        raise CommandError(f"{path} exists already; it was not written")
    print(f"Wrote {path}.")
    chosen = "" if path == Path("gateway.yaml") else f" -c {path}"
    print(
        f"\nNext:\n"
        f"  gateway check{chosen}\n"
        f"  gateway run{chosen}\n"
        f"and, in another terminal:\n"
        f"  gateway client create shop{chosen}"
    )
    return 0


def _check(text: str, upstream: str) -> None:
    """Raise `CommandError` for a URL that the configuration does not take."""
    from gateway.config import ConfigError, parse_config

    try:
        parse_config(text.replace(f"${{file:{TOKEN_FILE}}}", "x"), file="")
    except ConfigError as error:
        message = error.problems[0].message
        raise CommandError(f"--upstream {upstream!r}: {message}") from None


def _write(path: Path, text: str, *, mode: int) -> bool:
    """Write a new file; False where there is one. Raises `CommandError`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return False
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True
