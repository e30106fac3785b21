"""The rest of the admin API: how the gateway is, for programs that would show it."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from gateway.admin.accounts.audit import AuditLog
from gateway.admin.api import PREFIX, read_json, read_page_limit, read_text
from gateway.admin.explain import try_request
from gateway.admin.problems import ProblemError
from gateway.admin.status import GatewayFacts, describe_now
from gateway.admin.upstreams import describe_upstreams


class StatusApi:
    """Handlers that only read. Who asks was checked before."""

    def __init__(self, facts: GatewayFacts, audit: AuditLog) -> None:
        self._facts = facts
        self._audit = audit

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Make the handlers known."""
        router.add_get(PREFIX + "/overview", self._show_overview, allow_head=False)
        router.add_get(PREFIX + "/routes", self._list_routes, allow_head=False)
        if self._facts.explain is not None:
            router.add_post(PREFIX + "/explain", self._explain)
        router.add_get(PREFIX + "/upstreams", self._list_upstreams, allow_head=False)
        router.add_get(PREFIX + "/events", self._list_events, allow_head=False)
        router.add_get(PREFIX + "/audit", self._list_audit, allow_head=False)

    async def _show_overview(self, request: web.Request) -> web.Response:
        return web.json_response(describe_now(self._facts))

    async def _list_routes(self, request: web.Request) -> web.Response:
        return web.json_response({"routes": [dict(row) for row in self._facts.routes()]})

    async def _list_upstreams(self, request: web.Request) -> web.Response:
        return web.json_response({"upstreams": describe_upstreams(self._facts.upstream_states())})

    async def _explain(self, request: web.Request) -> web.Response:
        assert self._facts.explain is not None
        body = await read_json(request)
        headers = body.get("headers", {})
        if not isinstance(headers, dict) or not all(
            isinstance(value, str) for value in headers.values()
        ):
            raise ProblemError(400, "headers", "headers must be an object of strings.")
        told = await try_request(
            self._facts.explain,
            read_text(body, "method") or "GET",
            read_text(body, "url") or "/",
            list(headers.items()),
            read_text(body, "source") or "",
        )
        return web.json_response(told)

    async def _list_events(self, request: web.Request) -> web.Response:
        events = [asdict(event) for event in self._facts.events()]
        return web.json_response({"events": events[: read_page_limit(request)]})

    async def _list_audit(self, request: web.Request) -> web.Response:
        limit = read_page_limit(request)
        page = await self._audit.page(after=request.query.get("after", ""), limit=limit)
        return web.json_response(
            {
                "entries": [asdict(entry) for entry in page],
                "next": page[-1].key if len(page) == limit else None,
            }
        )
