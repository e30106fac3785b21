"""The provider of a configuration, opened for one command beside a running gateway."""

from __future__ import annotations

import getpass
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.cli.needs import NOT_FOR_STORE

if TYPE_CHECKING:
    from gateway.config.problems import Path as KeyPath
    from gateway.oauth.server import AuthorizationServer

Result = TypeVar("Result")


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

    from gateway.admin.accounts.audit import AuditLog
    from gateway.app.provider import open_provider_alone
    from gateway.config import load_config
    from gateway.oauth.server import RegisteredClient

    async def run() -> Result:
        config = load_config(path, leave_out=leave_out)
        async with open_provider_alone(config, must_exist=not makes_store) as provider:
            result = await work(provider.server)
            if action and result is not None:
                audit = AuditLog(
                    provider.store.records,
                    retention_s=config.admin.audit_retention,
                    wall_clock=time.time,
                )
                made = result.client.client_id if isinstance(result, RegisteredClient) else ""
                await audit.note(command_line_user(), "", action, target or made)
            return result

    return asyncio.run(run())


def command_line_user() -> str:
    """Return the name of the user who runs this command, for the audit log."""
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):  # a container's user may have no name
        return "command line"
