"""`gateway import mule`: bring the clients of a Mule OAuth2 Provider along."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.needs import NOT_FOR_STORE
from gateway.cli.output import print_json, print_table
from gateway.cli.progress import ProgressBar
from gateway.cli.provider import with_provider

if TYPE_CHECKING:
    from gateway.cli.mule_clients import MuleClient
    from gateway.oauth.server import AuthorizationServer


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the commands known."""
    parser = commands.add_parser("import", help="import clients from another provider")
    kinds = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    mule = kinds.add_parser(
        "mule",
        parents=[with_config, with_json],
        help="the static clients of a Mule OAuth2 Provider, from its XML or as JSON",
    )
    mule.add_argument("file", metavar="FILE", type=Path, help="Mule configuration, or JSON")
    mule.add_argument(
        "--properties",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="values of its ${placeholders}, .properties or YAML; repeatable",
    )
    mule.add_argument(
        "--replace", action="store_true", help="replace clients that exist, revoking their tokens"
    )
    mule.add_argument(
        "--dry-run", action="store_true", help="print the changes without applying them"
    )
    mule.set_defaults(command=_import_mule)


@dataclass
class _Outcome:
    """The result of importing one client."""

    client_id: str
    result: str = ""
    """`created`, `replaced`, `would be created` or `skipped`."""
    notes: list[str] = field(default_factory=list)
    client_secret: str | None = field(default=None, repr=False)


def _import_mule(options: argparse.Namespace) -> int:
    from gateway.cli.mule_clients import read_clients, read_properties
    from gateway.config import load_config

    properties: dict[str, str] = {}
    for path in options.properties:
        properties |= read_properties(path)
    clients = read_clients(options.file, properties)
    defaults = load_config(options.config, leave_out=NOT_FOR_STORE).provider.default_scopes

    async def register_all(server: AuthorizationServer) -> list[_Outcome]:
        # A secret is hashed for each, which takes its time; records of programs stay alone.
        bar = ProgressBar({"clients": len(clients)}) if sys.stderr.isatty() else None
        outcomes = []
        for done, client in enumerate(clients):
            if bar:
                bar.show("clients", done)
            outcomes.append(await _register(server, client, defaults, options))
        if bar:
            bar.show("clients", len(clients))
            bar.finish()
        return outcomes

    outcomes = with_provider(options.config, register_all, makes_store=True)
    _print(outcomes, options)
    return 1 if any(outcome.result == "skipped" for outcome in outcomes) else 0


async def _register(
    server: AuthorizationServer,
    client: MuleClient,
    defaults: list[str],
    options: argparse.Namespace,
) -> _Outcome:
    from gateway.oauth.client_metadata import read_metadata
    from gateway.oauth.errors import OAuthError

    outcome = _Outcome(client.client_id)
    grants = _grants(client, outcome, server.policy.grant_types)
    if not grants:
        outcome.result = "skipped"
        outcome.notes.append("no grant is left that is given here")
        return outcome
    members: dict[str, Any] = {"grant_types": grants, "redirect_uris": list(client.redirect_uris)}
    if client.description:
        members["description"] = client.description
    if not client.secret and not client.is_confidential and "client_credentials" not in grants:
        members["token_endpoint_auth_method"] = "none"
        outcome.notes.append("public, as in Mule: it proves nothing but its redirect URI")
    if client.principal and client.principal != client.client_id:
        outcome.notes.append(f"principal {client.principal!r} is not kept: the id is the principal")
    scopes = defaults if client.scopes is None else client.scopes
    try:
        registered = await server.register_client(
            client_id=client.client_id,
            client_secret=client.secret,
            client_name=client.name,
            scopes=scopes,
            metadata=read_metadata(members),
            replace_existing=options.replace,
            dry_run=options.dry_run,
        )
    except OAuthError as error:
        outcome.result = "skipped"
        outcome.notes.append(error.description)
        return outcome
    if options.dry_run:
        outcome.result = "would be created"
        return outcome
    outcome.result = "replaced" if registered.is_replacement else "created"
    if registered.client_secret and not client.secret:
        outcome.client_secret = registered.client_secret
        outcome.notes.append("had no secret: it has one now")
    return outcome


def _grants(client: MuleClient, outcome: _Outcome, given: Collection[str]) -> list[str]:
    """RFC 6749's names of a client's grants, as far as the provider gives them; where Mule names
    none, the one for machines."""
    from gateway.cli.mule_clients import GRANTS

    if not client.grants:
        return ["client_credentials"]
    for grant in client.grants:
        if grant not in GRANTS:
            outcome.notes.append(f"{grant} is refused by design (RFC 9700)")
        elif GRANTS[grant] not in given:
            key = "refresh_tokens.strategy" if grant == "REFRESH_TOKEN" else "grant_types"
            outcome.notes.append(f"{grant} is left out: provider.{key} does not give it")
    return [GRANTS[grant] for grant in client.grants if GRANTS.get(grant) in given]


def _print(outcomes: list[_Outcome], options: argparse.Namespace) -> None:
    records = [
        {
            "client_id": outcome.client_id,
            "result": outcome.result,
            "notes": outcome.notes,
            **({"client_secret": outcome.client_secret} if outcome.client_secret else {}),
        }
        for outcome in outcomes
    ]
    if options.json:
        print_json(records)
        return
    print_table(
        ("CLIENT ID", "RESULT", "NOTES"),
        [(one.client_id, one.result, "; ".join(one.notes) or "-") for one in outcomes],
    )
    for outcome in outcomes:
        if outcome.client_secret:
            print(f"\nThe secret of {outcome.client_id} is shown only this once:")
            print(outcome.client_secret)
