"""`gateway client ...`: register and look after clients, directly in the store."""

from __future__ import annotations

import argparse
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gateway.cli import limits
from gateway.cli.metadata import add_metadata_arguments, metadata_members
from gateway.cli.output import (
    CommandError,
    count,
    format_time,
    print_json,
    print_record,
    print_table,
    read_secret,
)
from gateway.cli.provider import require_client, with_client, with_provider
from gateway.cli.values import add_limit_argument, duration, page_size, utf8_text

if TYPE_CHECKING:
    from gateway.oauth.models import Client
    from gateway.oauth.policy import ProviderPolicy
    from gateway.oauth.server import AuthorizationServer, RegisteredClient


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the commands known."""
    parser = commands.add_parser("client", help="manage OAuth clients")
    client = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    parents = [with_config, with_json]

    create = client.add_parser("create", aliases=["add"], parents=parents, help="register a client")
    create.add_argument(
        "client_id", metavar="ID", nargs="?", type=utf8_text, help="client id (default: generated)"
    )
    create.add_argument("--id", metavar="ID", type=utf8_text, help="another spelling of ID")
    create.add_argument("--name", metavar="NAME", help="client name (default: the id)")
    create.add_argument("--scope", metavar="SCOPES", help="scopes it may ask for (default: all)")
    add_metadata_arguments(create)
    _add_secret_argument(create)
    create.add_argument(
        "--replace", action="store_true", help="replace a client of this id, revoking its tokens"
    )
    create.set_defaults(command=_create)

    listing = client.add_parser("list", parents=parents, help="list the clients")
    add_limit_argument(listing)
    listing.set_defaults(command=_list)

    for name, command, text in (
        ("show", _show, "show a client"),
        ("renew", _renew, "extend a client's registration"),
        ("delete", _delete, "delete a client and revoke its tokens"),
        ("end-overlap", _end_overlap, "have only the newest secret of a client work"),
        ("release", _release, "have a client no longer belong to the configuration declaring it"),
    ):
        sub = client.add_parser(name, parents=parents, help=text)
        sub.add_argument("client_id", metavar="ID", type=utf8_text, help="client id")
        sub.set_defaults(command=command)

    update = client.add_parser(
        "update", parents=parents, help="change what a client is registered with"
    )
    update.add_argument("client_id", metavar="ID", type=utf8_text, help="client id")
    update.add_argument("--name", metavar="NAME", help="client name")
    update.add_argument("--scope", metavar="SCOPES", help="scopes it may ask for")
    add_metadata_arguments(update)
    update.set_defaults(command=_update)

    rotate = client.add_parser("rotate", parents=parents, help="give a client a new secret")
    rotate.add_argument("client_id", metavar="ID", type=utf8_text, help="client id")
    _add_secret_argument(rotate)
    rotate.add_argument("--revoke-tokens", action="store_true", help="revoke its tokens too")
    rotate.add_argument(
        "--overlap",
        "--grace",
        metavar="DURATION",
        type=duration,
        default=0.0,
        help="how long the old secret works beside the new one, such as 1h (default: not at all)",
    )
    rotate.set_defaults(command=_rotate)

    hashing = client.add_parser(
        "hash",
        parents=[with_json],
        help="print the hash of a secret, for `clients` in the configuration",
        description="Print the hash of a secret (argon2id), for `secret_hash` of a client in the "
        "configuration. Without --secret-file, a secret is generated and shown once.",
    )
    _add_secret_argument(hashing)
    hashing.set_defaults(command=_hash)

    limits.add_command(client, parents)


def _add_secret_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--secret-file",
        metavar="FILE",
        help="file with the secret, - for standard input (default: generated and shown once)",
    )


def _create(options: argparse.Namespace) -> int:
    from gateway.oauth.client_metadata import read_metadata
    from gateway.oauth.errors import ClientAlreadyExistsError

    if options.id is not None and options.client_id not in {None, options.id}:
        raise CommandError(f"two client ids: {options.client_id!r} and --id {options.id!r}")
    secret = read_secret(options.secret_file) if options.secret_file else None
    metadata = read_metadata(metadata_members(options))
    policies: list[ProviderPolicy] = []

    async def register(server: AuthorizationServer) -> RegisteredClient:
        policies.append(server.policy)
        client_id = options.client_id if options.id is None else options.id
        try:
            return await server.register_client(
                client_id=client_id,
                client_secret=secret,
                client_name=options.name,
                scopes=None if options.scope is None else options.scope.split(),
                metadata=metadata,
                replace_existing=options.replace,
            )
        except ClientAlreadyExistsError:
            if await server.store.clients.get_client(client_id) is None:
                raise CommandError(f"there is a user of the name {client_id!r}") from None
            raise CommandError(
                f"there is a client {client_id!r} already; --replace replaces it, and revokes its "
                "tokens"
            ) from None

    registered = with_provider(options.config, register, action="client.create", makes_store=True)
    shows_secret = secret is None and bool(registered.client_secret)
    _print_registered(registered, options, shows_secret=shows_secret)
    if not options.json:
        _print_next(registered, policies[0], shows_secret=shows_secret)
    return 0


def _update(options: argparse.Namespace) -> int:
    from gateway.oauth.client_metadata import merge_metadata

    members = metadata_members(options)
    if not members and options.name is None and options.scope is None:
        raise CommandError("nothing to change: give --name, --scope, or another option of --help")
    client = with_client(
        options.config,
        options.client_id,
        lambda server: server.update_client(
            options.client_id,
            client_name=options.name,
            scopes=None if options.scope is None else options.scope.split(),
            metadata=lambda metadata: merge_metadata(metadata, members),
        ),
        action="client.update",
    )
    return _print_client(client, options)


def _rotate(options: argparse.Namespace) -> int:
    secret = read_secret(options.secret_file) if options.secret_file else None
    registered = with_client(
        options.config,
        options.client_id,
        lambda server: server.rotate_secret(
            options.client_id,
            client_secret=secret,
            revoke_tokens=options.revoke_tokens,
            overlap_s=options.overlap,
        ),
        action="client.rotate",
    )
    _print_registered(registered, options, shows_secret=secret is None)
    return 0


def _list(options: argparse.Namespace) -> int:
    async def read_all(server: AuthorizationServer) -> list[Client]:
        clients: list[Client] = []
        while size := page_size(options, len(clients)):
            after = clients[-1].client_id if clients else options.after
            clients += (page := await server.store.clients.list_clients(after=after, limit=size))
            if not page:
                break
        return clients

    records = [_record(client) for client in with_provider(options.config, read_all)]
    if options.json:
        print_json(records)
    else:
        header = ("CLIENT ID", "NAME", "SCOPE", "EXPIRES")
        print_table(
            header,
            [
                (
                    str(record["client_id"]),
                    str(record["client_name"]),
                    str(record["scope"]) or "-",
                    _describe_end(record),
                )
                for record in records
            ],
        )
    return 0


def _show(options: argparse.Namespace) -> int:
    client = with_provider(options.config, lambda server: require_client(server, options.client_id))
    return _print_client(client, options)


def _renew(options: argparse.Namespace) -> int:
    client = with_client(
        options.config,
        options.client_id,
        lambda server: server.renew_client(options.client_id),
        action="client.renew",
    )
    return _print_client(client, options)


def _end_overlap(options: argparse.Namespace) -> int:
    client = with_client(
        options.config,
        options.client_id,
        lambda server: server.end_overlap(options.client_id),
        action="client.end_overlap",
    )
    return _print_client(client, options)


def _release(options: argparse.Namespace) -> int:
    client = with_client(
        options.config,
        options.client_id,
        lambda server: server.release_client(options.client_id),
        action="client.release",
    )
    return _print_client(client, options)


def _hash(options: argparse.Namespace) -> int:
    import asyncio

    from gateway.oauth.clients import check_secret
    from gateway.oauth.credentials import SecretHasher, random_text

    given = read_secret(options.secret_file) if options.secret_file else None
    secret = given or random_text(32)
    check_secret(secret)

    async def hash_secret() -> str:
        hasher = SecretHasher()
        try:
            return await hasher.hash(secret)
        finally:
            await hasher.close()

    secret_hash = asyncio.run(hash_secret())
    shown = {} if given else {"client_secret": secret}
    if options.json:
        print_json({"secret_hash": secret_hash, **shown})
    else:
        print_record({"secret_hash": secret_hash, **shown})
    return 0


def _delete(options: argparse.Namespace) -> int:
    revoked = with_client(
        options.config,
        options.client_id,
        lambda server: server.delete_client(options.client_id),
        action="client.delete",
    )
    if options.json:
        print_json({"client_id": options.client_id, "tokens_revoked": revoked})
    else:
        print(f"deleted {options.client_id}, {count(revoked, 'live token')} revoked")
    return 0


def _print_client(client: Client, options: argparse.Namespace) -> int:
    record = _record(client)
    if options.json:
        print_json(record)
    else:
        limit = {"rate limit": limits.limit_text(client.rate_limit)} if client.rate_limit else {}
        print_record({**_readable(record), **limit})
    return 0


def _print_registered(
    registered: RegisteredClient, options: argparse.Namespace, *, shows_secret: bool
) -> None:
    record = _record(registered.client)
    # A secret that the operator brought along is known already: it need not be on a screen.
    secret = {"client_secret": registered.client_secret} if shows_secret else {}
    if options.json:
        print_json({**record, **secret})
        return
    print_record({**_readable(record), **secret})
    if shows_secret:
        print("\nThe secret is shown only this once.")


def _print_next(
    registered: RegisteredClient, policy: ProviderPolicy, *, shows_secret: bool
) -> None:
    """Show how the client gets a token: by its secret, or where it sends its users."""
    client = registered.client
    is_plain = re.fullmatch(r"[\w.~-]+", f"{client.client_id}{registered.client_secret}", re.ASCII)
    grants = _record(client).get("grant_types")
    if not isinstance(grants, list):
        return
    if "authorization_code" in grants:
        print(
            "\nNext, the application sends its users to\n\n"
            f"    {policy.issuer}{policy.authorize_path}?response_type=code"
            f"&client_id={quote(client.client_id, safe='')}&redirect_uri=...&code_challenge=..."
            "&code_challenge_method=S256\n\n"
            "(PKCE, RFC 7636; its library does it). `gateway user create` adds a user."
        )
    elif shows_secret and is_plain and "client_credentials" in grants:
        print(
            "Next, as the client, get a token:\n\n"
            f"    curl {policy.issuer}{policy.token_path} "
            f"-u {client.client_id}:{registered.client_secret} -d grant_type=client_credentials"
        )


def _record(client: Client) -> dict[str, object]:
    from gateway.admin.descriptions import describe_client

    return {**describe_client(client, time.time())}


def _readable(record: dict[str, object]) -> dict[str, object]:
    from gateway.oauth.client_metadata import REGISTRABLE

    issued_at = record["client_id_issued_at"]
    assert isinstance(issued_at, int)
    return {
        "client_id": record["client_id"],
        "client_name": record["client_name"],
        "scope": record["scope"] or "-",
        **{
            name: " ".join(value) if isinstance(value, list) else value
            for name, value in record.items()
            if name in REGISTRABLE and name != "jwks"
        },
        "created": format_time(issued_at),
        "expires": _describe_end(record),
        **_describe_overlap(record),
        **_describe_owner(record),
    }


def _describe_end(record: dict[str, object]) -> str:
    end = record["client_secret_expires_at"]
    assert isinstance(end, int)
    if not end:
        return "never"
    return format_time(end) + (" (expired)" if record["expired"] else "")


def _describe_overlap(record: dict[str, object]) -> dict[str, object]:
    end = record.get("previous_secret_expires_at")
    return {"previous secret expires": format_time(end)} if isinstance(end, int) and end else {}


def _describe_owner(record: dict[str, object]) -> dict[str, object]:
    owner = record.get("managed_by")
    if owner is None:
        return {}
    since = record.get("disabled_at")
    disabled = f", disabled since {format_time(since)}" if isinstance(since, int) else ""
    return {"declared in": f"the configuration (clients_owner {owner}){disabled}"}
