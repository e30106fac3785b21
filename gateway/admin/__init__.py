"""The admin listener: metrics, health and the admin API. Not for the public."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from gateway.admin.accounts import Accounts
from gateway.admin.actions import AdminActions
from gateway.admin.api import PREFIX, AdminApi, describe_client, inspect_token
from gateway.admin.api_status import StatusApi
from gateway.admin.console import add_console
from gateway.admin.limits import describe_limit
from gateway.admin.log_level import LogLevel, add_log_level
from gateway.admin.openapi import openapi_document
from gateway.admin.problems import answer_problems
from gateway.admin.reloads import ReloadApi, Reloads
from gateway.admin.source import Source, source_behind
from gateway.admin.status import GatewayFacts, Readiness
from gateway.oauth.models import Clock
from gateway.oauth.server import AuthorizationServer

__all__ = [
    "GatewayFacts",
    "Readiness",
    "Reloads",
    "create_admin_app",
    "describe_client",
    "describe_limit",
    "inspect_token",
    "source_behind",
]

MAX_BODY_BYTES = 64 * 1024

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class RenderMetrics(Protocol):
    """Makes the page of metrics."""

    async def __call__(self, *, openmetrics: bool = False) -> bytes:
        """In Prometheus' text format, or in OpenMetrics', which has exemplars."""


def _without_traceback(record: logging.LogRecord) -> bool:
    # aiohttp logs requests that it can't parse, and the traceback holds the offending line, which
    # may well be an Authorization header.
    record.exc_info = record.exc_text = None
    return True


def create_admin_app(
    *,
    server: AuthorizationServer,
    accounts: Accounts,
    facts: GatewayFacts,
    render_metrics: RenderMetrics,
    log_level: LogLevel,
    admin_token: Callable[[], str | None],
    source: Source,
    wall_clock: Clock = time.time,
) -> web.Application:
    """The application of the admin listener.

    `render_metrics` makes the page in Prometheus' text format. `facts` are about the gateway
    as a whole. `admin_token` is asked with each request for one that the API takes beside those
    of `accounts`. `source` tells the address that a request came from.
    """
    logging.getLogger("aiohttp.server").addFilter(_without_traceback)
    actions = AdminActions(server, accounts.audit)
    api = AdminApi(
        server,
        actions,
        accounts.tokens,
        admin_token=admin_token,
        source=source,
        wall_clock=wall_clock,
    )

    async def show_metrics(request: web.Request) -> web.Response:
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        return web.Response(
            body=await render_metrics(openmetrics=openmetrics),
            headers={"Content-Type": OPENMETRICS if openmetrics else PROMETHEUS},
        )

    async def tell_health(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def tell_readiness(request: web.Request) -> web.Response:
        checks = await facts.readiness()
        is_ready = all(state == "ok" for state in checks.values())
        return web.json_response(
            {"status": "ready" if is_ready else "not ready", "checks": dict(checks)},
            status=200 if is_ready else 503,
        )

    async def show_openapi(request: web.Request) -> web.Response:
        return web.json_response(openapi_document(server.policy))

    app = web.Application(
        middlewares=[answer_problems, api.require_token], client_max_size=MAX_BODY_BYTES
    )
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/openapi.json", show_openapi)
    app.router.add_get("/healthz", tell_health)
    app.router.add_get("/readyz", tell_readiness)
    api.add_routes(app.router)
    add_log_level(app.router, PREFIX + "/log-level", log_level, accounts.audit)
    StatusApi(facts, accounts.audit).add_routes(app.router)
    ReloadApi(facts.reloads, accounts.audit).add_routes(app.router)
    add_console(
        app,
        server=server,
        actions=actions,
        accounts=accounts,
        facts=facts,
        source=source,
        wall_clock=wall_clock,
    )
    return app
