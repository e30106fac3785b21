"""How much the processes of a gateway say of themselves: `{"level": "DEBUG"}`."""

from __future__ import annotations

from typing import Protocol

import msgspec
from aiohttp import web

from gateway.admin.accounts import ACTOR
from gateway.admin.accounts.audit import AuditLog
from gateway.admin.problems import ProblemError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class LogLevel(Protocol):
    """The level of all processes of this gateway."""

    def get(self) -> str:
        """One of `LEVELS`."""

    def set(self, level: str) -> None:
        """Take effect at once, until the next start."""


def add_log_level(router: web.UrlDispatcher, path: str, level: LogLevel, audit: AuditLog) -> None:
    """Make the handlers known."""

    async def show(request: web.Request) -> web.Response:
        return web.json_response({"level": level.get()})

    async def change(request: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await request.read(), type=dict[str, object]).get("level")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            wanted = None
        if request.content_type != "application/json":
            raise ProblemError(415, "content_type", "The body must be application/json.")
        if not isinstance(wanted, str) or wanted not in LEVELS:
            raise ProblemError(400, "level", f"level must be one of {', '.join(LEVELS)}.")
        level.set(wanted)
        actor = request[ACTOR]
        await audit.note(actor.name, actor.address, "log_level.set", "", wanted)
        return await show(request)

    router.add_get(path, show, allow_head=False)
    router.add_put(path, change)
