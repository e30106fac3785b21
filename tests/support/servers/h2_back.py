"""Speaks HTTP/2 to a gateway and HTTP/1.1 to the upstream of a test: what a suite shows with one
protocol is shown with the other, too, by the same scripts.

A stream is a request on a connection of its own, kept for the next stream of the same connection of
HTTP/2. Heads pass as they are, malformed ones too; bodies as fast as they are taken. A script that
hangs up before its response is whole closes the connection of HTTP/2, and a stream that the gateway
resets is a connection that is closed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from support.servers.h2_upstream import H2Request, H2ServerConnection, H2Upstream

Raw = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_OF_A_CONNECTION = {b"connection", b"keep-alive", b"transfer-encoding"}


class H2Back:
    """Listens on `port`, and connects to `upstream_port`."""

    def __init__(self, upstream_port: int, port: int = 0) -> None:
        self._upstream_port = upstream_port
        self._server = H2Upstream(
            on_head=self._begin,
            on_data=self._take,
            on_end=lambda request: self._take(request, None),
            on_closed=self._close_idle,
            acknowledges=False,
            validates=False,
            port=port,
        )
        self._bodies: dict[H2Request, asyncio.Queue[bytes | None]] = {}
        self._idle: defaultdict[H2ServerConnection, list[Raw]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; returns the port."""
        await self._server.__aenter__()
        return self._server.port

    async def stop(self) -> None:
        """Close the socket and every connection."""
        await self._server.__aexit__(None, None, None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in tuple(self._idle):
            self._close_idle(connection)

    def _begin(self, request: H2Request) -> None:
        self._bodies[request] = asyncio.Queue()
        task = asyncio.create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, request: H2Request, piece: bytes | None) -> None:
        if request in self._bodies and piece != b"":
            self._bodies[request].put_nowait(piece)

    def _close_idle(self, connection: H2ServerConnection) -> None:
        for _, writer in self._idle.pop(connection, []):
            writer.transport.abort()

    async def _serve(self, request: H2Request) -> None:
        idle = self._idle[request.connection]
        try:
            reader, writer = (
                idle.pop()
                if idle
                else await asyncio.open_connection("127.0.0.1", self._upstream_port)
            )
        except OSError:
            request.connection.hang_up()
            return
        sending = asyncio.create_task(self._send(request, writer))
        ending = asyncio.create_task(request.over.wait())
        receiving = asyncio.create_task(self._receive(request, reader))
        tasks = (sending, ending, receiving)
        try:
            await asyncio.wait((ending, receiving), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                is_kept = receiving.result() and sending.done() and request.is_complete
                if is_kept and not reader.at_eof() and request.connection.transport is not None:
                    idle.append((reader, writer))
                    return
                if not sending.done():  # a response before the end of the request
                    await ending
            writer.close()
        except (ConnectionError, EOFError, ValueError, LookupError):
            request.connection.hang_up()
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            del self._bodies[request]

    async def _send(self, request: H2Request, writer: asyncio.StreamWriter) -> None:
        fields = dict(request.headers)
        lines = [b"%b: %b\r\n" % one for one in request.headers if not one[0].startswith(b":")]
        is_chunked = request.has_body and b"content-length" not in fields
        if is_chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        writer.write(
            b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n"
            % (fields[b":method"], fields[b":path"], fields[b":authority"], b"".join(lines))
        )
        while (piece := await self._bodies[request].get()) is not None:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
            await writer.drain()
            request.acknowledge(len(piece))
        if is_chunked:
            writer.write(b"0\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % one for one in request.trailers))
        await writer.drain()

    async def _receive(self, request: H2Request, reader: asyncio.StreamReader) -> bool:
        """Pass a response on; returns whether its connection may be used again."""
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *lines = head[:-4].split(b"\r\n")
            status = line.split(b" ", 2)[1]
            pairs = [(name.lower(), value.strip(b" \t")) for name, _, value in
                     (one.partition(b":") for one in lines)]  # fmt: skip
            found = dict(pairs)
            kept = [one for one in pairs if one[0] not in _OF_A_CONNECTION]
            if not status.startswith(b"1"):
                break
            request.head(status, kept)
        is_bodiless = status in (b"204", b"304") or (b":method", b"HEAD") in request.headers
        length = int(found.get(b"content-length", b"-1"))
        is_chunked = b"transfer-encoding" in found
        is_empty = is_bodiless or (length == 0 and not is_chunked)
        request.head(status, kept, ends=is_empty)
        if is_empty:
            return True
        if is_chunked:
            while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                await request.give((await reader.readexactly(size + 2))[:-2])
            trailers = []
            while (one := await reader.readuntil(b"\r\n")) != b"\r\n":
                name, _, value = one.partition(b":")
                trailers.append((name.lower(), value.strip()))
            request.end(trailers)
            return True
        left = length
        while left and (piece := await reader.read(65536 if left < 0 else min(left, 65536))):
            left -= len(piece) if left > 0 else 0
            await request.give(piece, ends=not left)
        if left > 0:
            raise asyncio.IncompleteReadError(b"", left)
        if left < 0:
            request.end()
        return not left
