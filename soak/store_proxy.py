"""A TCP proxy before the store of a run, so that it can be unavailable for a moment."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from soak.loopback_server import LoopbackServer

PORTS = {"redis": 6379, "postgresql": 5432}
"""The stores that are reached over the network, and their usual ports."""


class StoreProxy(LoopbackServer):
    """Passes bytes on to the store of a URL; `stop` cuts every connection."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._parts = urlsplit(url)

    @property
    def url(self) -> str:
        """The store's URL, with this proxy in its place."""
        user, at, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._parts.port or PORTS[self._parts.scheme]
        ends = [writer]
        try:
            store_reader, store_writer = await asyncio.open_connection(self._parts.hostname, port)
            ends.append(store_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass(reader, store_writer))
                group.create_task(_pass(store_reader, writer))
        except* OSError:
            pass
        finally:
            for one in ends:
                one.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    raise ConnectionResetError  # so that the other direction ends, too


def open_proxy(url: str) -> StoreProxy | None:
    """The proxy for a store; None for one that is a file, or several servers."""
    parts = urlsplit(url)
    return StoreProxy(url) if parts.scheme in PORTS and "," not in parts.netloc else None
