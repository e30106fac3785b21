"""Live parts of pages, by server-sent events.

What is sent is a piece of the page as the server renders it, the same for all who look, so
it is rendered once for each tick, however many look on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import aiohttp_jinja2
from aiohttp import web

from gateway.admin.console.site import ROOT, Site
from gateway.admin.console.status_pages import StatusPages
from gateway.admin.status import GatewayStatus
from gateway.web.headers import page_headers

TICK_S = 2.0
CHECK_TICKS = 5
"""After so many, it is asked whether the session still lasts."""
MAX_WATCHERS = 32


class Live:
    """Streams of page parts."""

    def __init__(self, site: Site, gateway_status: GatewayStatus, status: StatusPages) -> None:
        self._site = site
        self._gateway_status = gateway_status
        self._parts: dict[str, Callable[[str, str], tuple[str, dict[str, Any]]]] = {
            "overview": lambda kind, span: ("_overview.html", status.overview(span)),
            "events": lambda kind, span: ("_events.html", status.events(kind, span)),
        }
        self._watchers = 0
        self._rendered: dict[tuple[str, str, str], tuple[int, bytes]] = {}
        self._ending: list[asyncio.Task[None]] = []

    def add_routes(self) -> None:
        """Make the stream known."""
        self._site.add_open("GET", "/live/{part:overview|events}", self._stream)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if await self._site.visitor(request, is_use=False) is None:
            # 204 makes an EventSource stop reconnecting.
            return web.Response(status=204)
        if self._watchers >= MAX_WATCHERS:
            return web.Response(status=503, headers={"Retry-After": "30"})
        kind, span = (request.query.get(name, "")[:16] for name in ("kind", "range"))
        shown = request.match_info["part"], kind, span
        headers = dict(page_headers()) | {"Content-Type": "text/event-stream; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        self._watchers += 1
        try:
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                await self._send(request, response, shown)
        finally:
            self._watchers -= 1
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, shown: tuple[str, str, str]
    ) -> None:
        ticks = 0
        while True:
            ticks += 1
            # Watching is no use of the session: an idle one expires.
            is_due = ticks % CHECK_TICKS == 0
            if is_due and await self._site.visitor(request, is_use=False) is None:
                await response.write(b"event: gone\ndata: \n\n")
                return
            await response.write(self._render(request, shown))
            await asyncio.sleep(TICK_S)

    def _render(self, request: web.Request, shown: tuple[str, str, str]) -> bytes:
        changes = self._gateway_status.recent.history.changes
        known = self._rendered.get(shown)
        if known is not None and known[0] == changes:
            return known[1]
        part, kind, span = shown
        template, values = self._parts[part](kind, span)
        text = aiohttp_jinja2.render_string(template, request, {"root": ROOT, **values})
        lines = "".join(f"data: {line}\n" for line in text.splitlines())
        event = f"event: part\n{lines}\n".encode()
        if len(self._rendered) > 16:
            self._rendered.clear()
        self._rendered[shown] = (changes, event)
        return event
