"""The admin listener: metrics, health and the admin API. Not for the public."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from gateway.admin.api import AdminApi, describe_client, inspect_token
from gateway.admin.limits import describe_limit
from gateway.admin.openapi import openapi_document
from gateway.admin.problems import answer_problems
from gateway.admin.reloads import ReloadApi, Reloads
from gateway.oauth.server import AuthorizationServer

__all__ = ["Reloads", "create_admin_app", "describe_client", "describe_limit", "inspect_token"]

MAX_BODY_BYTES = 64 * 1024

Readiness = Callable[[], Awaitable[Mapping[str, str]]]
RenderMetrics = Callable[[], Awaitable[bytes]]


def _without_traceback(record: logging.LogRecord) -> bool:
    # aiohttp logs requests that it can't parse, and the traceback holds the offending line, which
    # may well be an Authorization header.
    record.exc_info = record.exc_text = None
    return True


def create_admin_app(
    *,
    server: AuthorizationServer,
    render_metrics: RenderMetrics,
    readiness: Readiness,
    admin_token: Callable[[], str | None],
    reloads: Reloads | None = None,
) -> web.Application:
    """The application of the admin listener.

    `render_metrics` makes the page in Prometheus' text format. `readiness` tells the state of
    each check, `ok` or what is wrong. Without an `admin_token`, which is asked for with each
    request, the API is off. `reloads` loads the configuration anew.
    """
    logging.getLogger("aiohttp.server").addFilter(_without_traceback)
    api = AdminApi(server, admin_token=admin_token)

    async def show_metrics(request: web.Request) -> web.Response:
        return web.Response(
            body=await render_metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def tell_health(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def tell_readiness(request: web.Request) -> web.Response:
        checks = await readiness()
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
    ReloadApi(reloads).add_routes(app.router)
    return app
