"""A TCP proxy that loses or delays what goes through it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from support.servers.raw_upstream import close_server


class FaultProxy:
    """Between a gateway and its Redis. Use as `async with`."""

    def __init__(self, port: int) -> None:
        self.upstream_port = port
        """Where new connections lead."""
        self._is_dropping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await close_server(self._server)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        """From here on everything is lost, and nobody is told, on new connections too."""
        self._is_dropping = True

    def forward(self) -> None:
        """The reverse: for new connections, since what was lost leaves the old ones unusable."""
        self._is_dropping = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        except OSError:
            writer.transport.abort()
            return
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the end of the test
                await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
        finally:
            for one in (writer, up_writer):
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_broken = False
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                is_broken = is_broken or self._is_dropping
                if is_broken:
                    continue
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(piece)
            writer.transport.abort()
