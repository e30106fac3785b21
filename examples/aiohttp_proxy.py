"""An aiohttp application that forwards all paths to one service, for requests with a valid token.

    python -m examples.aiohttp_proxy gateway.yaml http://127.0.0.1:9001 8080

It is there to be measured (`make bench SUBJECTS="gateway aiohttp aiohttp-proxy-handler"`): what is
a proxy and nothing else is better a gateway.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web

from gateway.aiohttp import EmbeddedGateway, bearer_middleware, cleanup_ctx, proxy_handler


async def serve(config: str, upstream: str, port: int) -> None:
    """Serve until the process ends."""
    gateway = EmbeddedGateway(config)
    app = web.Application(middlewares=[bearer_middleware(gateway)])
    app.cleanup_ctx.append(cleanup_ctx(gateway))
    app.router.add_route("*", "/{path:.*}", proxy_handler(upstream, gateway))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
