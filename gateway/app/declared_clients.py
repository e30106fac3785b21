"""Has the store hold the clients that the configuration declares: once for a gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.app.build.clients import declared_clients
from gateway.background import FIRST_PAUSE_S, RetryPauses
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.oauth.declared_clients import (
    ClientReconciler,
    LeaseLostError,
    Reconciled,
)
from gateway.oauth.errors import TemporarilyUnavailableError
from gateway.oauth.models import StoreUnavailableError

Note = Callable[[str, str, str, str, str], Awaitable[None]]
"""Takes actor, address, action, client id and detail."""
LOOK_S = 15.0
"""How often to see whether another gateway has declared others."""
RETRY_S = 1.0
MAX_LOGGED = 50
_AUDITED = {
    "created": "client.create", "replaced": "client.replace", "disabled": "client.disable",
}  # fmt: skip

_log = logging.getLogger(__name__)


class DeclaredClients:
    """Reconciles at the start and after each reload."""

    def __init__(
        self,
        reconciler: ClientReconciler,
        metrics: Metrics,
        *,
        note: Note | None = None,
    ) -> None:
        """`note` writes into the audit log."""
        self._reconciler = reconciler
        self._metrics = metrics
        self._note = note
        self._changed = asyncio.Event()
        self._config: Config | None = None
        self._declares = False
        self._is_done = True
        self._is_overridden = False
        self._task: asyncio.Task[None] | None = None

    def declare(self, config: Config) -> None:
        """Have the clients of a configuration in the store from now on."""
        declares = "clients" in config.model_fields_set
        if self._config is not None and self._declares and not declares:
            _log.warning(
                "the configuration declares no clients any more: the %d of clients_owner %r stay "
                "as they are; `clients: {}` disables them, `gateway client release ID` gives one "
                "to the API",
                len(self._config.clients),
                self._config.clients_owner,
            )
        self._config, self._declares = config, declares
        self._is_done = not declares
        self._metrics.provider.clients_declared.set(len(config.clients))
        self._changed.set()

    def readiness(self) -> dict[str, str]:
        """Return a check of `/readyz`, where clients are declared."""
        if not self._declares:
            return {}
        return {"clients": "ok" if self._is_done else "not yet in the store"}

    def start(self) -> None:
        """Start in the background: the store may be unavailable yet."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop, between two clients."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        retries = RetryPauses("clients of the configuration", first_pause_s=FIRST_PAUSE_S)
        while True:
            pause_s = LOOK_S
            try:
                if self._changed.is_set():
                    await self._reconcile()
                else:
                    await self._look()
            except (StoreUnavailableError, TemporarilyUnavailableError, LeaseLostError):
                pause_s = RETRY_S  # the store has logged why
            except Exception as error:
                pause_s = retries.fail(error)
            else:
                retries.succeed()
                if self._changed.is_set():
                    continue
            if pause_s == LOOK_S:
                await _wait_for(self._changed, pause_s)
            else:
                await asyncio.sleep(pause_s)

    async def _reconcile(self) -> None:
        self._changed.clear()
        config = self._config
        # In a thread: there may be thousands.
        declared = None if config is None else await asyncio.to_thread(declared_clients, config)
        if config is None or declared is None:
            return
        owner = config.clients_owner
        try:
            reconciled = await self._reconciler.reconcile(owner, declared)
        except BaseException:
            self._changed.set()
            raise
        self._set_overridden(reconciled.is_overridden)
        for action in reconciled.actions:
            detail = f"{action.done}: {action.detail}" if action.detail else action.done
            name = _AUDITED.get(action.done, "client.update")
            by = f"configuration (clients_owner {owner})"
            if self._note is not None:
                await self._note(by, "", name, action.client_id, detail)
        self._report(owner, reconciled)
        self._is_done = not self._changed.is_set()

    async def _look(self) -> None:
        if self._declares:
            self._set_overridden(await self._reconciler.is_overridden())

    def _set_overridden(self, is_overridden: bool) -> None:
        if is_overridden and not self._is_overridden:
            _log.warning(
                "another gateway has declared other clients of clients_owner %r since: the store "
                "holds those. Give both the same clients, or another clients_owner; a change of "
                "this configuration, or a restart, applies those of this one",
                self._config.clients_owner if self._config is not None else "",
            )
        self._is_overridden = is_overridden
        self._metrics.provider.clients_in_sync.set(not is_overridden)

    def _report(self, owner: str, reconciled: Reconciled) -> None:
        for conflict in reconciled.conflicts:
            _log.error("a declared client is left out: %s", conflict)
        shown = [
            f"{one.client_id} {one.done}" + (f" ({one.detail})" if one.detail else "")
            for one in reconciled.actions[:MAX_LOGGED]
        ]
        if len(reconciled.actions) > MAX_LOGGED:
            shown.append(f"and {len(reconciled.actions) - MAX_LOGGED} more")
        if shown:
            _log.info("clients of clients_owner %r: %s", owner, "; ".join(shown))


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
