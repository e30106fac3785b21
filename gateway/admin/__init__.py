"""The admin listener: metrics, health and the admin API. Not for the public."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from gateway.admin.api import AdminApi, describe_client, describe_token
from gateway.admin.limits import describe_limit
from gateway.admin.problems import answer_problems
from gateway.metrics import Metrics
from gateway.oauth.models import Change
from gateway.oauth.server import AuthorizationServer

__all__ = ["create_admin_app", "describe_client", "describe_limit", "describe_token"]

MAX_BODY_BYTES = 64 * 1024

Readiness = Callable[[], Awaitable[Mapping[str, str]]]


def create_admin_app(
    *,
    server: AuthorizationServer,
    metrics: Metrics,
    readiness: Readiness,
    admin_token: str | None,
    on_change: Callable[[Change], None],
) -> web.Application:
    """The application of the admin listener.

    `readiness` tells the state of each check, `ok` or what is wrong. `on_change` is told
    what the API made invalid, so that this process forgets it at once. Without an
    `admin_token` the API is off.
    """
    api = AdminApi(server, admin_token=admin_token, on_change=on_change)

    async def show_metrics(request: web.Request) -> web.Response:
        return web.Response(
            body=metrics.render(),
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

    app = web.Application(
        middlewares=[answer_problems, api.require_token], client_max_size=MAX_BODY_BYTES
    )
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", tell_health)
    app.router.add_get("/readyz", tell_readiness)
    api.add_routes(app.router)
    return app
