"""The upstream of a run: answers with proof of what it was asked, and misbehaves on request."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from collections import Counter

from soak.loopback_server import LoopbackServer

TCP_REPAIR = 19  # linux/tcp.h; the socket module has no name for it
EVENTS = 5
"""Of a stream of events."""
EVENT_S = 0.05
PIECE = bytes(range(256)) * 64


def expected_body(number: str, body: bytes) -> bytes:
    """The body that proves that the response belongs to the request."""
    return f"{number}:{len(body)}:{hashlib.sha256(body).hexdigest()}".encode()


def expected_events(number: str) -> bytes:
    """The same of a stream of events."""
    return b"".join(_render_event(number, step) for step in range(EVENTS))


def _render_event(number: str, step: int) -> bytes:
    return b"data: %b\n\n" % expected_body(f"{number}.{step}", b"")


class Origin(LoopbackServer):
    """An HTTP/1.1 server for the paths below."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        """How often each POST came, by its number."""
        self.speaks = asyncio.Event()
        """Cleared, it takes requests and says nothing."""
        self.speaks.set()

    def vanish(self) -> None:
        """Forget every connection and tell nobody, as a host does that loses its power: what is
        sent on one later is answered by a reset. Linux, and raises `PermissionError` for who may
        not administer the network."""
        for writer in tuple(self._connections):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._respond(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except RuntimeError:
            # uvloop's word for a transport that `stop` has aborted.
            if not writer.transport.is_closing():
                raise
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        fields = {name.lower(): value.strip() for name, _, value in
                  (line.partition(":") for line in head[1:-2])}  # fmt: skip
        body = await _read_body(reader, fields)
        if target == "/mcp":
            action, number = "ok", json.loads(body)["id"]
        else:
            _, action, number = target.split("/")
        if method == "POST":
            self.seen[number] += 1
        response = expected_body(number, body)
        if action == "slow":
            await asyncio.sleep(0.3)
        await self.speaks.wait()
        if action == "reset":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + PIECE)
            await writer.drain()
            writer.transport.abort()
            return False
        if action == "events":
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for step in range(EVENTS):
                event = _render_event(number, step)
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(EVENT_S)
            writer.write(b"0\r\n\r\n")
        elif action == "chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in (response[:9], response[9:]):
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            # Hanging up without a word would cost a POST on its way a 502, and rightly so.
            last = b"Connection: close\r\n" if action == "close" else b""
            line = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (last, len(response))
            writer.write(line + response)
        await writer.drain()
        return action != "close"


async def _read_body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    if fields.get("transfer-encoding"):
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body
    return await reader.readexactly(int(fields.get("content-length", "0")))
