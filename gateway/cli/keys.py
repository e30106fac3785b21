"""`gateway signing-key ...`: the keys that sign JWTs, as they are in the store."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway.cli.output import CommandError, format_time, print_json, print_record, print_table
from gateway.cli.provider import with_provider
from gateway.suggestions import did_you_mean, listed

if TYPE_CHECKING:
    from gateway.oauth.keys.signing import KeyDescription
    from gateway.oauth.server import AuthorizationServer


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the commands known."""
    parser = commands.add_parser("signing-key", help="show the keys that sign JWTs")
    key = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    parents = [with_config, with_json]
    key.add_parser(
        "list",
        parents=parents,
        help="list the signing keys",
        description="List the signing keys: the one that signs now, the next one, and earlier ones "
        "that verify tokens which are still valid. They rotate by provider.jwt.rotate_every.",
    ).set_defaults(command=list_keys)
    add_show(key, parents)


def add_show(
    key: Any,
    parents: Sequence[argparse.ArgumentParser],
    *,
    help_text: str = "show a signing key, its public half",
) -> None:
    """Add the command that shows one."""
    show = key.add_parser("show", parents=parents, help=help_text)
    show.add_argument("key_id", metavar="KEY_ID", help="key id (kid)")
    show.set_defaults(command=_show)


def _read(options: argparse.Namespace) -> Sequence[KeyDescription]:
    from gateway.oauth.keys.signing import describe_keys

    async def read(server: AuthorizationServer) -> Sequence[KeyDescription]:
        return await describe_keys(server.store.records, time.time())

    return with_provider(options.config, read)


def list_keys(options: argparse.Namespace) -> int:
    """Print the signing keys."""
    keys = _read(options)
    if options.json:
        print_json([_record(key) for key in keys])
        return 0
    print_table(
        ("KEY ID", "ALGORITHM", "STATE", "SIGNS FROM", "SIGNS UNTIL", "PUBLISHED UNTIL"),
        [
            (
                key.key_id, key.algorithm, key.state, format_time(key.signs_from),
                format_time(key.signs_until), format_time(key.published_until),
            )
            for key in keys
        ],
    )  # fmt: skip
    return 0


def _show(options: argparse.Namespace) -> int:
    known = _read(options)
    for key in known:
        if key.key_id == options.key_id:
            if options.json:
                print_json({**_record(key), "jwk": key.public})
            else:
                print_record(
                    {
                        "key id": key.key_id,
                        "algorithm": key.algorithm,
                        "state": key.state,
                        "signs from": format_time(key.signs_from),
                        "signs until": format_time(key.signs_until),
                        "published until": format_time(key.published_until),
                    }
                )
            return 0
    ids = [key.key_id for key in known]
    hint = did_you_mean(options.key_id, ids)
    raise CommandError(f"there is no signing key {options.key_id!r} (known: {listed(ids)}){hint}")


def _record(key: KeyDescription) -> dict[str, object]:
    return {
        "kid": key.key_id, "alg": key.algorithm, "state": key.state,
        "signs_from": int(key.signs_from), "signs_until": int(key.signs_until),
        "published_until": int(key.published_until),
    }  # fmt: skip
