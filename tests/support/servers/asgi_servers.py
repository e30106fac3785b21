"""uvicorn and Hypercorn in the test's event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from hypercorn.asyncio import serve as serve_by_hypercorn
from hypercorn.config import Config
from support.deadlines import scaled

SERVERS = ("uvicorn", "hypercorn")


@asynccontextmanager
async def serve(app: Any, server: str) -> AsyncIterator[str]:
    """Serve an ASGI application by one of `SERVERS`; gives `127.0.0.1:PORT`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        authority = f"127.0.0.1:{listening.getsockname()[1]}"
        run = _uvicorn if server == "uvicorn" else _hypercorn
        async with run(app, listening):
            async with httpx.AsyncClient() as client:
                await client.get(f"http://{authority}/", timeout=scaled())  # once it has started
            yield authority


@asynccontextmanager
async def _uvicorn(app: Any, listening: socket.socket) -> AsyncIterator[None]:
    settings = uvicorn.Config(app, lifespan="on", log_config=None, ws="websockets-sansio")
    server = uvicorn.Server(settings)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def _hypercorn(app: Any, listening: socket.socket) -> AsyncIterator[None]:
    stop = asyncio.Event()
    settings = Config()
    settings.bind = [f"fd://{listening.fileno()}"]
    settings.errorlog = None
    task = asyncio.create_task(serve_by_hypercorn(app, settings, shutdown_trigger=stop.wait))
    try:
        yield
    finally:
        stop.set()
        await task
        listening.detach()  # closed by the server
