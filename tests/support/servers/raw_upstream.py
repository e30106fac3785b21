"""An upstream that keeps every byte it gets and answers with exactly the bytes it is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Self

from support.deadlines import scaled
from support.servers.h2_back import H2Back
from support.servers.left_ports import keep

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Received:
    """A request as it came over the wire."""

    request_line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: bytes = b""
    """Their lines."""
    connection: int = 0

    def all(self, name: bytes) -> list[bytes]:
        """The values of a field."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def names(self) -> list[bytes]:
        """The names of all fields, in lower case."""
        return [name.lower() for name, _ in self.headers]


@dataclass
class Conversation:
    """One connection, for scripts that need more than a response to each request."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def read_head(self) -> Received | None:
        """The next head, None at the end of the connection."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        line, *lines = head[:-4].split(b"\r\n")
        headers = [(name, value.strip()) for name, _, value in (li.partition(b":") for li in lines)]
        return Received(line, headers, connection=self.number)

    async def read_body(self, received: Received) -> None:
        """The body by its framing, framing removed; raises where it breaks off."""
        if received.all(b"transfer-encoding"):
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                received.body += (await self.reader.readexactly(size + 2))[:-2]
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                received.trailers += line
        elif length := received.all(b"content-length"):
            received.body = await self.reader.readexactly(int(length[0]))

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close the connection the hard way."""
        self.writer.transport.abort()


Script = Callable[[Conversation, "RawUpstream"], Awaitable[None]]
Respond = Callable[[Received], bytes]


@dataclass
class RawUpstream:
    """Answers every request with `respond`, or follows `script` on each connection."""

    protocol: ClassVar[str] = "http/1.1"
    """What it is spoken to by; `h2` has `H2Back` before it. See `support.protocols`."""

    respond: Respond = lambda received: OK
    script: Script | None = None
    requests: list[Received] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    """The address of each connection's other end."""
    connections: int = 0
    open_connections: int = 0
    broken_bodies: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """What a configuration calls it."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(
        self, port: int = 0, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen, on a free port unless one is given."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._back: H2Back | None = None
        is_h2 = self.protocol == "h2" and tls is None
        self._server = await asyncio.start_server(self._accept, host, 0 if is_h2 else port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        if is_h2:
            self._back = H2Back(self.port, port)
            self.port = await self._back.start()

    async def stop(self) -> None:
        """Close the socket and every connection."""
        if self._back is not None:
            await self._back.stop()
        ports = {sock.getsockname()[1] for sock in self._server.sockets}
        await close_server(self._server)
        for port in ports:
            keep(port)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _turns()  # in which transports end

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # For one that is cancelled before it has begun.
        task.add_done_callback(lambda task: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.peers.append(str((writer.get_extra_info("peername") or ("",))[0]))
        self.open_connections += 1
        conversation = Conversation(reader, writer, self.connections)
        try:
            await (self.script or _respond_each)(conversation, self)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.broken_bodies += 1
        except asyncio.CancelledError:
            pass
        finally:
            self.open_connections -= 1
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


async def close_server(server: asyncio.Server) -> None:
    """Accept nothing more, and close once what was accepted has arrived here.

    In asyncio, a transport that is made after its server was closed raises within its own
    construction, and is left open (`Server._attach`).
    """
    loop = asyncio.get_running_loop()
    for sock in server.sockets:
        if isinstance(loop, asyncio.SelectorEventLoop):
            loop.remove_reader(sock.fileno())
    await _turns()
    server.close()
    await _turns()


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _end_tasks() -> None:
    """End what came up while the server was stopping."""
    await _turns()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _turns()


async def _respond_each(conversation: Conversation, upstream: RawUpstream) -> None:
    while (received := await conversation.read_head()) is not None:
        await conversation.read_body(received)
        upstream.requests.append(received)
        await conversation.send(upstream.respond(received))


@contextmanager
def thread_upstream(script: Script | None = None) -> Iterator[RawUpstream]:
    """An upstream on a thread and an event loop of its own, for tests whose gateway and clients are
    processes and threads."""
    upstream = RawUpstream(script=script)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(upstream.start(), loop).result(scaled())
    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(upstream.stop(), loop).result(scaled())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_end_tasks())
        loop.close()
