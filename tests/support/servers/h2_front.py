"""Speaks HTTP/1.1 to a test and HTTP/2 to its gateway: what a suite asks of the one protocol is
asked of the other, too, by the same requests.

Each connection of the test is one to the gateway, made of hyper-h2. It passes on what both have:
heads, bodies as they come and as fast as they are taken, interim responses, trailers, and ends: a
client that leaves is RST_STREAM, and RST_STREAM of the gateway is a connection that breaks off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from http import HTTPStatus
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions

Headers = list[tuple[bytes, bytes]]
PIECE = 16_384
PROTOCOL_ERROR, CANCEL = 1, 8
_OF_A_CONNECTION = {
    b"connection", b"host", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade",
}  # fmt: skip
_SPELLED = {b"www-authenticate": b"WWW-Authenticate", b"etag": b"ETag"}


class _Reader(asyncio.StreamReader):
    """Reports the end of what it reads, at once."""

    def __init__(self) -> None:
        super().__init__(limit=1 << 17)
        self.over = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.over.set()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)  # type: ignore[arg-type]
        self.over.set()


def _render(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Lines, with names as the gateway writes them in HTTP/1.1: tests may look for those."""
    return b"".join(
        b"%b: %b\r\n" % (_SPELLED.get(name) or name.title(), value) for name, value in fields
    )


def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())


class H2Front:
    """Listens on `port`, and connects to `gateway_port`."""

    def __init__(self, gateway_port: int) -> None:
        self.gateway_port = gateway_port
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def make() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(_Reader(), self._accept)

        self._server = await loop.create_server(make, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _Reader)
        task = asyncio.create_task(_Link(reader, writer).run(self.gateway_port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # For one that is cancelled before it has begun.
        task.add_done_callback(lambda task: writer.transport.abort() if task.cancelled() else None)


class _BrokenError(Exception):
    """A side has ended before its message."""


class _Link:
    """One connection on each side."""

    def __init__(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._core = h2.connection.H2Connection(
            h2.config.H2Configuration(
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._stream = 0
        self._upload: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._is_lost = False
        # Of the response.
        self._heads: list[Headers] = []
        self._body = bytearray()
        self._trailers: Headers = []
        self._has_ended = False
        self._is_reset = False
        self._reset_code = 0

    async def run(self, port: int) -> None:
        far, self._far = await asyncio.open_connection("127.0.0.1", port)
        self._core.initiate_connection()
        self._send()
        receiving = asyncio.create_task(self._receive(far))
        try:
            while await self._exchange():
                pass
            self._writer.close()
        except (_BrokenError, ConnectionError, asyncio.IncompleteReadError):
            self._writer.transport.abort()
            if self._stream and not self._has_ended and not self._is_lost:
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    self._core.reset_stream(self._stream, CANCEL)
                    self._send()
            self._far.close()
        except BaseException:
            self._writer.transport.abort()
            self._far.transport.abort()
            raise
        else:
            self._far.close()
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    # Towards the gateway.

    async def _exchange(self) -> bool:
        """Pass a request and its response on; returns whether there may be another one."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return False
        line, *lines = head[:-4].split(b"\r\n")
        method, target, _ = line.split(b" ", 2)
        fields = [(name.lower(), value.strip(b" \t")) for name, _, value in
                  (one.partition(b":") for one in lines)]  # fmt: skip
        options = b",".join(value.lower() for name, value in fields if name == b"connection")
        pseudo = [(b":method", method), (b":scheme", b"http")]
        authority = b"".join(value for name, value in fields if name == b"host")
        if target.startswith(b"http://"):
            authority, slash, rest = target.removeprefix(b"http://").partition(b"/")
            target = slash + rest or b"/"
        if authority:
            pseudo.append((b":authority", authority))
        pseudo.append((b":path", target))
        is_chunked = any(name == b"transfer-encoding" for name, _ in fields)
        length = int(next((value for name, value in fields if name == b"content-length"), b"0"))
        kept = [one for one in fields if one[0] not in _OF_A_CONNECTION]
        kept = [one for one in kept if one[0] != b"te" or one[1] == b"trailers"]
        self._heads.clear()
        self._trailers = []
        self._has_ended = self._is_reset = False
        self._stream = self._core.get_next_available_stream_id()
        has_body = is_chunked or length > 0
        self._core.send_headers(self._stream, [*pseudo, *kept], end_stream=not has_body)
        self._send()
        takes_trailers = (b"te", b"trailers") in kept
        respond = asyncio.create_task(self._respond(method, takes_trailers=takes_trailers))
        watch = asyncio.create_task(self._reader.over.wait())
        self._upload = upload = None
        if has_body:
            self._upload = upload = asyncio.create_task(self._pass(None if is_chunked else length))
        try:
            await asyncio.wait((respond, watch), return_when=asyncio.FIRST_COMPLETED)
            if not respond.done():
                raise _BrokenError
            await respond
            if upload is not None and (not upload.done() or upload.exception() is not None):
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)
                await self._linger()
                return False  # a response before the end of the request
        finally:
            tasks = [task for task in (respond, watch, upload) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return b"close" not in options and not self._is_reset

    async def _linger(self) -> None:
        """Read what the test still sends: closing on it would reset the connection, and the
        response may be lost with it."""
        await self._writer.drain()
        self._writer.write_eof()
        while await self._reader.read(65536):
            pass

    async def _pass(self, length: int | None) -> None:
        if length is not None:
            while length:
                piece = await self._reader.read(min(length, PIECE))
                if not piece:
                    raise _BrokenError
                length -= len(piece)
                await self._give(piece, ends=not length)
            return
        while size := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            while size:
                piece = await self._reader.read(min(size, PIECE))
                if not piece:
                    raise _BrokenError
                size -= len(piece)
                await self._give(piece, ends=False)
            await self._reader.readexactly(2)
        trailers: Headers = []
        while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.partition(b":")
            trailers.append((name.lower(), value.strip()))
        if trailers:
            self._core.send_headers(self._stream, trailers, end_stream=True)
            self._send()
        else:
            await self._give(b"", ends=True)

    async def _give(self, piece: bytes, *, ends: bool) -> None:
        while piece or ends:
            room = min(self._core.local_flow_control_window(self._stream), PIECE)
            if piece and room <= 0:
                await self._wait()
                continue
            self._core.send_data(self._stream, piece[:room], end_stream=ends and len(piece) <= room)
            self._send()
            await self._far.drain()
            if len(piece) <= room:
                return
            piece = piece[room:]

    def _send(self) -> None:
        self._far.write(self._core.data_to_send())

    # Towards the test.

    async def _respond(self, method: bytes, *, takes_trailers: bool) -> None:
        while True:
            try:
                head = await self._next_head()
            except _BrokenError:
                if self._reset_code != PROTOCOL_ERROR:
                    raise
                # What the engine rejects has no response; in log and metrics, it is 400.
                head = [(b":status", b"400"), (b"content-length", b"0")]
                self._has_ended = True
            status = int(dict(head)[b":status"])
            lines = _render(one for one in head if one[0] != b":status")
            if status >= 200:
                break
            self._writer.write(_status_line(status) + lines + b"\r\n")
        has_body = method != b"HEAD" and status not in (204, 304)
        if self._upload is not None and not self._upload.done():
            lines += b"Connection: close\r\n"
        is_chunked = has_body and b"content-length" not in dict(head)
        if is_chunked:
            lines += b"Transfer-Encoding: chunked\r\n"
        self._writer.write(_status_line(status) + lines + b"\r\n")
        while True:
            if self._body:
                piece = bytes(self._body)
                self._body.clear()
                if has_body:
                    framed = b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece
                    self._writer.write(framed)
                    await self._writer.drain()
                if not self._has_ended and not self._is_reset and not self._is_lost:
                    self._core.acknowledge_received_data(len(piece), self._stream)
                    self._send()
            elif self._has_ended:
                break
            elif self._is_reset or self._is_lost:
                raise _BrokenError
            else:
                await self._wait()
        if is_chunked:
            trailers = self._trailers if takes_trailers else []
            self._writer.write(b"0\r\n%b\r\n" % _render(trailers))
        await self._writer.drain()

    async def _next_head(self) -> Headers:
        while not self._heads:
            if self._is_reset or self._is_lost:
                raise _BrokenError
            await self._wait()
        return self._heads.pop(0)

    async def _wait(self) -> None:
        self._changed.clear()
        if self._is_lost:
            raise _BrokenError
        await self._changed.wait()

    async def _receive(self, far: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):
            while data := await far.read(65536):
                for event in self._core.receive_data(data):
                    self._take(event)
                self._send()
                self._changed.set()
        self._is_lost = True
        self._changed.set()

    def _take(self, event: h2.events.Event) -> None:
        if getattr(event, "stream_id", self._stream) not in (0, self._stream):
            return
        if isinstance(event, h2.events.ResponseReceived | h2.events.InformationalResponseReceived):
            self._heads.append(list(event.headers or ()))
        elif isinstance(event, h2.events.DataReceived):
            self._body += event.data or b""
        elif isinstance(event, h2.events.TrailersReceived):
            self._trailers = list(event.headers or ())
        elif isinstance(event, h2.events.StreamEnded):
            self._has_ended = True
        elif isinstance(event, h2.events.StreamReset):
            self._is_reset = True
            self._reset_code = int(event.error_code or 0)
