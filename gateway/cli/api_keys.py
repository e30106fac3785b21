"""`gateway key ...`: API keys of clients, directly in the store.

`list` without a client, and `show`, are about signing keys, as before API keys were there; their
commands are `gateway signing-key ...`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway.cli import keys
from gateway.cli.output import (
    STDIN,
    CommandError,
    format_time,
    print_json,
    print_record,
    print_table,
    read_secret,
)
from gateway.cli.provider import require_client, with_client, with_provider
from gateway.cli.values import duration, positive, utf8_text
from gateway.suggestions import did_you_mean, listed

if TYPE_CHECKING:
    from gateway.oauth.api_keys import ApiKey, NewApiKey
    from gateway.oauth.server import AuthorizationServer


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the commands known."""
    parser = commands.add_parser("key", aliases=["api-key"], help="manage API keys of clients")
    key = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    parents = [with_config, with_json]

    create = key.add_parser("create", aliases=["add"], parents=parents, help="create an API key")
    create.add_argument("client_id", metavar="CLIENT_ID", type=utf8_text, help="client id")
    create.add_argument(
        "--name", metavar="NAME", required=True, help="what it is for, such as nightly-export"
    )
    create.add_argument("--scope", metavar="SCOPES", help="scopes (default: all of the client's)")
    create.add_argument(
        "--expires",
        metavar="DURATION",
        type=duration,
        help="lifetime, such as 90d (default: provider.api_keys.ttl)",
    )
    create.add_argument(
        "--requests", metavar="N", type=positive, help="rate limit of this key: requests in --per"
    )
    create.add_argument(
        "--per", metavar="TIME", type=duration, default=1.0, help="time of the limit (default: 1s)"
    )
    create.add_argument(
        "--burst", metavar="N", type=positive, help="requests at once (default: as --requests)"
    )
    create.set_defaults(command=_create)

    listing = key.add_parser(
        "list",
        parents=parents,
        help="list the API keys of a client",
        description="List the API keys of a client. Without one, list the signing keys, as "
        "`gateway signing-key list` does.",
    )
    listing.add_argument(
        "client_id", metavar="CLIENT_ID", nargs="?", type=utf8_text, help="client id"
    )
    listing.set_defaults(command=_list)

    rotate = key.add_parser(
        "rotate", parents=parents, help="create an API key like another one, which expires"
    )
    _add_key_arguments(rotate)
    rotate.add_argument(
        "--overlap",
        metavar="DURATION",
        type=duration,
        default=0.0,
        help="how long the old key works beside the new one, such as 1d (default: not at all)",
    )
    rotate.set_defaults(command=_rotate)

    revoke = key.add_parser("revoke", aliases=["delete"], parents=parents, help="revoke an API key")
    _add_key_arguments(revoke)
    revoke.set_defaults(command=_revoke)

    inspect = key.add_parser("inspect", parents=parents, help="show which API key this is")
    inspect.add_argument(
        "api_key",
        metavar="API_KEY",
        nargs="?",
        default=STDIN,
        help="the key; - reads it from standard input, where no process list shows it",
    )
    inspect.set_defaults(command=_inspect)

    keys.add_show(
        key, parents, help_text="show a signing key, its public half; see `gateway signing-key`"
    )


def _add_key_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("client_id", metavar="CLIENT_ID", type=utf8_text, help="client id")
    parser.add_argument("key_id", metavar="KEY_ID", type=utf8_text, help="id of the API key")


def _create(options: argparse.Namespace) -> int:
    from gateway.oauth.api_keys import KeySettings
    from gateway.rate_limit import RateLimit

    limit = None
    if options.requests is not None:
        limit = RateLimit(options.requests, options.per, options.burst or options.requests)
    settings = KeySettings(
        name=options.name,
        scopes=None if options.scope is None else tuple(options.scope.split()),
        ttl_s=options.expires,
        rate_limit=limit,
    )
    made = with_client(
        options.config,
        options.client_id,
        lambda server: server.api_keys.create(options.client_id, settings),
        action="api_key.create",
    )
    return _print_new(made, options)


def _list(options: argparse.Namespace) -> int:
    client_id = options.client_id
    if client_id is None:
        status = keys.list_keys(options)
        print("For API keys, name a client: gateway key list CLIENT_ID", file=sys.stderr)
        return status

    async def read(server: AuthorizationServer) -> Sequence[ApiKey]:
        await require_client(server, client_id)
        return await server.api_keys.list(client_id)

    found = with_provider(options.config, read)
    if options.json:
        print_json([_describe(key) for key in found])
        return 0
    print_table(
        ("KEY ID", "NAME", "SCOPE", "LAST USED", "EXPIRES"),
        [
            (
                key.key_id,
                key.name,
                "all" if key.scopes is None else " ".join(key.scopes) or "-",
                "never" if key.last_used is None else format_time(key.last_used),
                _end(key),
            )
            for key in found
        ],
    )
    return 0


def _rotate(options: argparse.Namespace) -> int:
    made = with_client(
        options.config,
        options.client_id,
        lambda server: server.api_keys.rotate(
            options.client_id, options.key_id, overlap_s=options.overlap
        ),
        action="api_key.rotate",
        target=f"{options.client_id} {options.key_id}",
        part=lambda server: _no_such_key(server, options),
    )
    return _print_new(made, options)


def _revoke(options: argparse.Namespace) -> int:
    key = with_client(
        options.config,
        options.client_id,
        lambda server: server.api_keys.revoke(options.client_id, options.key_id),
        action="api_key.revoke",
        target=f"{options.client_id} {options.key_id}",
        part=lambda server: _no_such_key(server, options),
    )
    if options.json:
        print_json(_describe(key))
    else:
        print(f"revoked API key {key.key_id} ({key.name}) of {key.client_id}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    value = read_secret(STDIN) if options.api_key == STDIN else str(options.api_key)
    key = with_provider(options.config, lambda server: server.api_keys.find(value))
    if key is None:
        raise CommandError("this is no API key that is known here")
    _print_key(key, options)
    return 0


def _print_new(made: NewApiKey, options: argparse.Namespace) -> int:
    if options.json:
        print_json({**_describe(made.key), "api_key": made.value})
        return 0
    print_record({**_readable(made.key), "api key": made.value})
    print("\nThe key is shown only this once.")
    return 0


def _print_key(key: ApiKey, options: argparse.Namespace) -> None:
    if options.json:
        print_json(_describe(key))
    else:
        print_record(_readable(key))


def _readable(key: ApiKey) -> dict[str, object]:
    from gateway.cli.limits import limit_text

    limit = {} if key.rate_limit is None else {"rate limit": limit_text(key.rate_limit)}
    return {
        "key id": key.key_id,
        "client id": key.client_id,
        "name": key.name,
        "scope": "all of the client's" if key.scopes is None else " ".join(key.scopes) or "-",
        "created": format_time(key.created_at),
        "last used": "never" if key.last_used is None else format_time(key.last_used),
        "expires": _end(key),
        **limit,
    }


def _end(key: ApiKey) -> str:
    if key.expires_at is None:
        return "never"
    expired = " (expired)" if key.is_expired(time.time()) else ""
    return format_time(key.expires_at) + expired


def _describe(key: ApiKey) -> dict[str, object]:
    from gateway.admin.descriptions import describe_api_key

    return {**describe_api_key(key, time.time())}


async def _no_such_key(server: AuthorizationServer, options: argparse.Namespace) -> str:
    known = [key.key_id for key in await server.api_keys.list(options.client_id)]
    hint = did_you_mean(options.key_id, known)
    return f"has no API key {options.key_id!r} (it has: {listed(known)}){hint}"
