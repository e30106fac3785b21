"""`gateway token ...`: issue, list, inspect and revoke tokens, directly in the store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gateway.cli.needs import NOT_FOR_ISSUING
from gateway.cli.output import (
    STDIN,
    CommandError,
    format_time,
    print_json,
    print_record,
    print_table,
    read_secret,
)
from gateway.cli.provider import require_client, with_provider
from gateway.cli.values import duration, page_size, positive, utf8_text
from gateway.suggestions import did_you_mean, listed

if TYPE_CHECKING:
    from gateway.oauth.issuing import IssuedToken
    from gateway.oauth.models import AccessToken
    from gateway.oauth.refresh import FamilyState
    from gateway.oauth.server import AuthorizationServer

TIMES = {"iat", "nbf", "exp", "auth_time"}
"""Members of a token's metadata that are Unix times."""


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the commands known."""
    parser = commands.add_parser("token", help="issue, list, inspect and revoke tokens")
    token = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    parents = [with_config, with_json]

    issue = token.add_parser(
        "issue", aliases=["create"], parents=parents, help="issue a token for a client"
    )
    issue.add_argument("client_id", metavar="CLIENT_ID", type=utf8_text, help="client id")
    issue.add_argument("--scope", metavar="SCOPES", help="scopes (default: the provider's default)")
    issue.add_argument("--ttl", metavar="DURATION", type=duration, help="lifetime, such as 5m")
    issue.set_defaults(command=_issue)

    listing = token.add_parser(
        "list", parents=parents, help="list the live access tokens of a client"
    )
    listing.add_argument("client_id", metavar="CLIENT_ID", type=utf8_text, help="client id")
    listing.add_argument(
        "--limit", metavar="N", type=positive,
        help="list this many at most, the next to expire first (default: all)",
    )  # fmt: skip
    listing.set_defaults(command=_list)

    for names, command, text in (
        (("inspect", "show"), _inspect, "show a token's metadata"),
        (("revoke", "delete"), _revoke, "revoke a token"),
    ):
        sub = token.add_parser(names[0], aliases=names[1:], parents=parents, help=text)
        sub.add_argument(
            "token",
            metavar="TOKEN",
            nargs="?",
            default=STDIN,
            help="the token; - reads it from standard input, where no process list shows it",
        )
        sub.set_defaults(command=command)

    families = token.add_parser(
        "families", parents=parents, help="list or revoke the refresh-token families of a client"
    )
    families.add_argument("client_id", metavar="CLIENT_ID", type=utf8_text, help="client id")
    which = families.add_mutually_exclusive_group()
    which.add_argument(
        "--revoke", metavar="FAMILY", help="revoke this one, with all its refresh and access tokens"
    )
    which.add_argument("--revoke-all", action="store_true", help="revoke all of them")
    families.set_defaults(command=_families)


def _issue(options: argparse.Namespace) -> int:
    async def issue(server: AuthorizationServer) -> IssuedToken:
        client = await require_client(server, options.client_id)
        if client.is_expired(server.now()):
            raise CommandError(
                f"the registration of client {client.client_id!r} has expired: `gateway client "
                "renew` extends it"
            )
        for name in (options.scope or "").split() if server.policy.scopes else ():
            if name not in client.scopes:
                hint = did_you_mean(name, client.scopes)
                raise CommandError(
                    f"client {client.client_id!r} does not have the scope {name!r} (it has: "
                    f"{listed(client.scopes)}){hint}"
                )
        return await server.issue_token_to(client.client_id, scope=options.scope, ttl_s=options.ttl)

    issued = with_provider(
        options.config,
        issue,
        action="token.issue",
        leave_out=NOT_FOR_ISSUING,
        target=options.client_id,
    )
    if options.json:
        print_json(
            {
                "access_token": issued.access_token,
                "token_type": "Bearer",
                "expires_in": issued.expires_in,
                "scope": issued.token.scope,
            }
        )
    else:
        print(issued.access_token)
    return 0


def _list(options: argparse.Namespace) -> int:
    client_id = options.client_id

    async def work(server: AuthorizationServer) -> list[AccessToken]:
        await require_client(server, client_id)
        found: list[AccessToken] = []
        while size := page_size(options, len(found)):
            page = await server.store.usage.list_tokens(
                client_id, after=found[-1] if found else None, limit=size
            )
            if not page:
                break
            found += page
        return found

    found = with_provider(options.config, work)
    if options.json:
        print_json([_describe_token(token) for token in found])
    else:
        header = ("DIGEST", "ISSUED", "EXPIRES", "SCOPE", "SUBJECT")
        print_table(header, [_token_row(token) for token in found])
    return 0


def _describe_token(token: AccessToken) -> dict[str, object]:
    """A token without what could be used as one: the beginning of its digest, as in the audit
    log."""
    return {
        "digest": token.digest.hex()[:12],
        "iat": int(token.issued_at),
        "exp": int(token.expires_at),
        "scope": " ".join(token.scopes),
        "sub": token.claims.get("sub", token.client_id),
    }


def _token_row(token: AccessToken) -> tuple[str, ...]:
    described = _describe_token(token)
    return (
        str(described["digest"]),
        format_time(token.issued_at),
        format_time(token.expires_at),
        " ".join(token.scopes) or "-",
        str(described["sub"]),
    )


def _inspect(options: argparse.Namespace) -> int:
    from gateway.admin.descriptions import inspect_token

    value = _read_token(options)
    description = with_provider(options.config, lambda server: inspect_token(server, value))
    if options.json:
        print_json(description)
    else:
        print_record({name: _readable(name, value) for name, value in description.items()})
    return 0 if description["active"] else 1


def _readable(name: str, value: object) -> object:
    return format_time(value) if name in TIMES and isinstance(value, int | float) else value


def _revoke(options: argparse.Namespace) -> int:
    from gateway.oauth.models import digest_token

    value = _read_token(options)
    client_id = with_provider(
        options.config,
        lambda server: server.revoke_token(value),
        action="token.revoke",
        target=f"digest {digest_token(value).hex()[:12]}",
    )
    if options.json:
        print_json({"revoked": client_id is not None})
    elif client_id is None:
        raise CommandError("there is no such token")
    else:
        print(f"revoked a token of {client_id}")
    return 0 if client_id is not None else 1


def _families(options: argparse.Namespace) -> int:
    client_id, chosen = options.client_id, options.revoke

    async def work(server: AuthorizationServer) -> list[FamilyState]:
        await require_client(server, client_id)
        found: list[FamilyState] = []
        while page := await server.refresh_tokens.list_families(
            client_id, after=found[-1].key if found else ""
        ):
            found += page
        if chosen is not None:
            known = [state.key for state in found]
            if chosen not in known:
                hint = did_you_mean(chosen, known)
                raise CommandError(
                    f"client {client_id!r} has no family {chosen!r} (it has: {listed(known)}){hint}"
                )
            found = [state for state in found if state.key == chosen]
        if chosen is not None or options.revoke_all:
            for state in found:
                await server.refresh_tokens.end(state.key)
        return found

    found = with_provider(options.config, work)
    if options.json:
        print_json([_describe_family(state) for state in found])
    else:
        header = ("FAMILY", "USER", "SCOPE", "LAST USED", "EXPIRES UNLESS USED")
        print_table(header, [_family_row(state) for state in found])
    return 0


def _describe_family(state: FamilyState) -> dict[str, object]:
    family = state.family
    return {
        "family": state.key,
        "username": family.username,
        "scope": " ".join(family.scopes),
        "began_at": int(family.began_at),
        "used_at": int(family.used_at),
        "expires_at": int(state.expires_at),
    }


def _family_row(state: FamilyState) -> tuple[str, ...]:
    family = state.family
    return (
        state.key,
        family.username or "-",
        " ".join(family.scopes) or "-",
        format_time(family.used_at),
        format_time(state.expires_at),
    )


def _read_token(options: argparse.Namespace) -> str:
    return str(options.token) if options.token != STDIN else read_secret(STDIN)
