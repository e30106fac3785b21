"""An aiohttp application with a token endpoint, and handlers that need a token.

    gateway init
    python -m examples.aiohttp_app gateway.yaml
    gateway client create shop

`GET /orders` needs a valid token, `POST /orders` one with the scope `write`; what is below
`/reports` is forwarded to another service. `docs/tutorials/aiohttp.md` builds it step by step.
"""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import web

from gateway.aiohttp import (
    EmbeddedGateway,
    bearer_middleware,
    cleanup_ctx,
    identity,
    provider_routes,
    proxy_handler,
    public,
    require_scopes,
)

REPORTS = "http://127.0.0.1:9001"
ORDERS: web.AppKey[list[str]] = web.AppKey("orders")


@public
async def health(request: web.Request) -> web.Response:
    """Say that it runs."""
    return web.Response(text="ok")


class Orders(web.View):
    """Orders: any valid token reads them."""

    async def get(self) -> web.Response:
        """List them."""
        orders = self.request.app[ORDERS]
        return web.json_response({"orders": orders, "client": identity(self.request).client_id})

    @require_scopes("write")
    async def post(self) -> web.Response:
        """Take one more."""
        item = (await self.request.text()).strip()
        self.request.app[ORDERS].append(item)
        return web.json_response({"item": item}, status=201)


def create_app(gateway: EmbeddedGateway) -> web.Application:
    """Make the application; tests give it a `gateway.testing.TemporaryGateway`."""
    app = web.Application(middlewares=[bearer_middleware(gateway)])
    app[ORDERS] = ["coffee"]
    app.cleanup_ctx.append(cleanup_ctx(gateway))
    app.add_routes(provider_routes(gateway))
    app.router.add_get("/health", health)
    app.router.add_view("/orders", Orders)
    app.router.add_route("*", "/reports{tail:.*}", proxy_handler(REPORTS, gateway))
    return app


def main() -> None:
    """Serve, where `listen` of the configuration says."""
    gateway = EmbeddedGateway(Path(sys.argv[1] if len(sys.argv) > 1 else "gateway.yaml"))
    listen = gateway.config.listen
    port = listen.port if isinstance(listen.port, int) else 8080
    web.run_app(create_app(gateway), host=listen.host, port=port)


if __name__ == "__main__":
    main()
