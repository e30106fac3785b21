"""The provider of a configuration, opened for one command beside a running gateway."""

from __future__ import annotations

import getpass
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.cli.needs import NOT_FOR_STORE
from gateway.cli.output import CommandError
from gateway.suggestions import did_you_mean

if TYPE_CHECKING:
    from gateway.admin.account_actions import UserActions
    from gateway.admin.accounts import Actor
    from gateway.admin.accounts.audit import AuditLog
    from gateway.app.provider import Provider
    from gateway.config import Config
    from gateway.config.problems import Path as KeyPath
    from gateway.oauth.models import Client
    from gateway.oauth.server import AuthorizationServer

Result = TypeVar("Result")
MAX_COMPARED = 1000
"""How many ids a wrong one is compared with."""


def with_provider(
    path: Path,
    work: Callable[[AuthorizationServer], Awaitable[Result]],
    *,
    action: str = "",
    target: str = "",
    leave_out: Collection[KeyPath] = NOT_FOR_STORE,
    makes_store: bool = False,
) -> Result:
    """Do `work` with the provider of the configuration at `path`, but for the parts at
    `leave_out`. Where it did something (it returned not None), `action` on `target` is written
    down in the audit log. Only a command that `makes_store` makes a database that is not there yet:
    any other would work on an empty one, beside that of the gateway.

    Raises `ConfigError`, `StoreError` and what `work` raises.
    """
    import asyncio

    from gateway.app.provider import open_provider_alone
    from gateway.config import load_config
    from gateway.oauth.server import RegisteredClient

    async def run() -> Result:
        config = load_config(path, leave_out=leave_out)
        async with open_provider_alone(config, must_exist=not makes_store) as provider:
            result = await work(provider.server)
            if action and result is not None:
                audit = _audit_log(config, provider)
                made = result.client.client_id if isinstance(result, RegisteredClient) else ""
                await audit.note(command_line_user(), "", action, target or made)
            return result

    return asyncio.run(run())


def with_client(
    path: Path,
    client_id: str,
    work: Callable[[AuthorizationServer], Awaitable[Result | None]],
    *,
    action: str = "",
    target: str = "",
    part: Callable[[AuthorizationServer], Awaitable[str]] | None = None,
) -> Result:
    """Do `work` on a client, as `with_provider` does; None is that it is not there or, where `part`
    describes a part of it, that this is not. Raises `CommandError` for both."""

    async def run(server: AuthorizationServer) -> Result:
        found = await work(server)
        if found is not None:
            return found
        await require_client(server, client_id)
        raise CommandError(f"client {client_id!r} {await part(server) if part else 'is gone'}")

    return with_provider(path, run, action=action, target=target or client_id)


async def require_client(server: AuthorizationServer, client_id: str) -> Client:
    """Return a client. Raises `CommandError`, with an id that is near, where there is none."""
    client = await server.store.clients.get_client(client_id)
    if client is None:
        known = await server.store.clients.list_clients(limit=MAX_COMPARED)
        hint = did_you_mean(client_id, [one.client_id for one in known])
        raise CommandError(f"there is no client {client_id!r}{hint}")
    return client


def with_users(
    path: Path,
    work: Callable[[UserActions, Actor], Awaitable[Result]],
    *,
    makes_store: bool = False,
) -> Result:
    """Do `work` on the users of the provider, as the user of the command line. See
    `with_provider`."""
    import asyncio

    from gateway.admin.account_actions import UserActions
    from gateway.app.provider import open_provider_alone
    from gateway.config import load_config

    async def run() -> Result:
        config = load_config(path, leave_out=NOT_FOR_STORE)
        async with open_provider_alone(config, must_exist=not makes_store) as provider:
            actions = UserActions(provider.server.users, _audit_log(config, provider))
            return await work(actions, command_line_actor())

    return asyncio.run(run())


def _audit_log(config: Config, provider: Provider) -> AuditLog:
    from gateway.admin.accounts.audit import AuditLog

    retention_s = config.admin.audit_retention
    return AuditLog(provider.store.records, retention_s=retention_s, wall_clock=time.time)


def command_line_actor() -> Actor:
    """Return the user who runs this command, as an actor who may do everything."""
    from gateway.admin.accounts import Actor

    return Actor(command_line_user(), "operator", "")


def command_line_user() -> str:
    """Return the name of the user who runs this command, for the audit log."""
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):  # a container's user may have no name
        return "command line"
