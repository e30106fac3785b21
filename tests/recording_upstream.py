"""An upstream that keeps every byte and lets a strict reader (h11) say what they mean."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

import h11

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Reading(NamedTuple):
    """A request as h11 reads the bytes that came."""

    method: bytes
    target: bytes
    body: bytes = b""


@dataclass
class RecordingUpstream:
    """Answers each request that h11 finds in what it gets; what h11 refuses is kept as well."""

    readings: list[Reading] = field(default_factory=list)
    heads: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    raw: list[bytearray] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """What a configuration calls it."""
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """Start anew."""
        self.readings.clear()
        self.heads.clear()
        self.refused.clear()
        self.raw.clear()

    async def __aenter__(self) -> RecordingUpstream:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
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

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        raw = bytearray()
        self.raw.append(raw)
        try:
            await self._read(reader, writer, raw)
        except h11.RemoteProtocolError as error:
            self.refused.append(str(error))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytearray
    ) -> None:
        judge = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = b""
        while True:
            event = judge.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65536)
                raw += data
                judge.receive_data(data)
            elif isinstance(event, h11.Request):
                head, body = event, b""
                self.heads.append(list(event.headers))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                self.readings.append(Reading(head.method, head.target, body))
                writer.write(ANSWER)
                await writer.drain()
                answer = h11.Response(status_code=200, headers=[("Content-Length", "0")])
                judge.send(answer)
                judge.send(h11.EndOfMessage())
                judge.start_next_cycle()
            else:
                return
