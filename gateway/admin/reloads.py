"""Reloads of the configuration, in the admin API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from aiohttp import web

from gateway.admin.accounts import ACTOR
from gateway.admin.accounts.audit import AuditLog
from gateway.admin.problems import ProblemError
from gateway.reloads import Reload, Trigger

RELOAD = "/api/v1/reload"
RELOADS = "/api/v1/reloads"


class Reloads(Protocol):
    """Loads the configuration anew, and remembers what became of it."""

    async def reload(self, trigger: Trigger) -> Reload:
        """Make an attempt. Raises nothing."""

    def recent(self) -> Sequence[Reload]:
        """The last attempts, the newest first."""


class ReloadApi:
    """The handlers of `/api/v1/reload` and `/api/v1/reloads`."""

    def __init__(self, reloads: Reloads | None, audit: AuditLog) -> None:
        self._reloads = reloads
        self._audit = audit

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Make the handlers known."""
        router.add_post(RELOAD, self._reload)
        router.add_get(RELOADS, self._list, allow_head=False)

    async def _reload(self, request: web.Request) -> web.Response:
        reload = await self._made().reload("api")
        described = describe_reload(reload)
        actor = request[ACTOR]
        await self._audit.note(actor.name, actor.address, "config.reload", "", reload.result)
        if reload.result == "ok":
            return web.json_response(described)
        return web.json_response(
            {
                "type": "about:blank",
                "title": "Unprocessable Content",
                "status": 422,
                "reason": "config",
                "detail": "The configuration can't be put to use; the one before it goes on.",
                **described,
            },
            status=422,
            content_type="application/problem+json",
        )

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"reloads": [*map(describe_reload, self._made().recent())]})

    def _made(self) -> Reloads:
        if self._reloads is None:
            raise ProblemError(409, "no_file", "This gateway was not started from a file.")
        return self._reloads


def describe_reload(reload: Reload) -> dict[str, object]:
    """An attempt for people and programs."""
    return {
        "time": datetime.fromtimestamp(reload.at, UTC).isoformat(timespec="milliseconds"),
        "trigger": reload.trigger,
        "result": reload.result,
        "duration_ms": round(reload.duration_s * 1000, 1),
        "config_hash": reload.config_hash,
        "problems": list(reload.problems),
        "changes": [
            {"key": change.key, "before": change.before, "after": change.after}
            for change in reload.changes
        ],
    }
