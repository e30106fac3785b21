"""The attackers: each goes on until it is ended, and counts what it did."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

CAP = 2000
"""Connections that the attacked gateway takes."""
GET = b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n"


@dataclass
class Attack:
    """One attacker's process."""

    port: int
    share: float = 1.0
    """Of the connections that an attack makes at once: a test makes fewer."""
    done: int = 0
    number: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """Connections and streams that the gateway ended, by status or code."""
    network = "127.0"
    """Of its addresses. The attacked gateway trusts this one to say who its clients are."""

    async def connect(self, *, takes: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection, from one of many addresses, so that ports don't run out. The kernel takes
        some `takes` bytes ahead for it, if that is given."""
        self.number += 1
        address = f"{self.network}.{1 + self.number // 200 % 50}.{1 + self.number % 200}"
        own = socket.socket()
        own.setblocking(False)
        if takes:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
        own.bind((address, 0))
        try:
            await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", self.port))
            return await asyncio.open_connection(sock=own)
        except BaseException:
            own.close()
            raise

    async def many(self, count: int, work: Callable[[], Awaitable[None]]) -> None:
        """So many at once, each again and again."""

        async def again() -> None:
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await work()
                await asyncio.sleep(0.001)

        await asyncio.gather(*(again() for _ in range(max(1, round(count * self.share)))))

    async def _drip(self, beginning: bytes) -> None:
        reader, writer = await self.connect()
        self.done += 1
        try:
            writer.write(beginning)
            while not reader.at_eof():
                writer.write(b"x")
                with contextlib.suppress(TimeoutError):
                    self._count_status(await asyncio.wait_for(reader.read(1000), 1.0))
        finally:
            writer.transport.abort()

    def _count_status(self, response: bytes) -> None:
        if response.startswith(b"HTTP/1.1 "):
            self.ended[response[9:12].decode()] += 1

    async def slow_heads(self) -> None:
        """1000 heads, a byte a second."""
        await self.many(1000, lambda: self._drip(b"GET /open HTTP/1.1\r\nHost: h\r\nX: "))

    async def slow_bodies(self) -> None:
        """200 bodies, a byte a second."""
        head = b"POST /open HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"
        await self.many(200, lambda: self._drip(head))

    async def slow_readers(self) -> None:
        """200 clients that ask for 64 MiB each and take nothing."""

        async def stare() -> None:
            _, writer = await self.connect(takes=8192)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            self.done += 1
            try:
                writer.write(GET % b"open/large")
                await asyncio.sleep(3)
            finally:
                writer.transport.abort()

        await self.many(200, stare)

    async def pipelines(self) -> None:
        """50 clients that send requests without end and read nothing."""

        async def pour() -> None:
            _, writer = await self.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            self.done += 1
            try:
                for _ in range(100):
                    writer.write(GET % b"open/flood" * 1000)
                    await asyncio.wait_for(writer.drain(), 3)
            except TimeoutError:
                pass
            finally:
                writer.transport.abort()

        await self.many(50, pour)

    async def endless_heads(self) -> None:
        """50 heads at a time that never end, as fast as they are taken."""

        async def pour() -> None:
            reader, writer = await self.connect()
            self.done += 1
            try:
                writer.write(b"GET /open HTTP/1.1\r\nHost: h\r\n")
                for number in range(1000):
                    writer.write(b"X-%d: %b\r\n" % (number, b"x" * 1000))
                    await writer.drain()
            except OSError:
                pass  # the response may be there nevertheless
            try:
                self._count_status(await reader.read())
            finally:
                writer.transport.abort()

        await self.many(50, pour)

    async def attempts_at_the_cap(self) -> None:
        """All connections that there may be, held; and attempts beyond, up to 100 000."""
        held = [await self.connect() for _ in range(CAP)]

        async def attempt() -> None:
            if self.done >= 100_000:
                await asyncio.sleep(60)
            self.done += 1
            reader, writer = await self.connect()
            try:
                self._count_status(await reader.read())
            finally:
                writer.transport.abort()

        await self.many(50, attempt)
        assert held

    async def unknown_tokens(self) -> None:
        """20 callers with tokens that they make up."""

        async def guess() -> None:
            reader, writer = await self.connect()
            try:
                for _ in range(1000):
                    self.done += 1
                    writer.write(
                        b"GET /api HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n\r\n"
                        % os.urandom(24).hex().encode()
                    )
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(body_length(head))
            finally:
                writer.transport.abort()

        await self.many(20, guess)

    async def wrong_secrets(self) -> None:
        """20 callers that guess secrets, each guess from another client and address."""

        async def guess() -> None:
            reader, writer = await self.connect()
            try:
                for _ in range(1000):
                    self.done += 1
                    body = b"grant_type=client_credentials&client_id=c%d&client_secret=%d" % (
                        self.done, self.done,
                    )  # fmt: skip
                    writer.write(
                        b"POST /token HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 198.51.%d.%d\r\n"
                        b"Content-Type: application/x-www-form-urlencoded\r\n"
                        b"Content-Length: %d\r\n\r\n%b"
                        % (self.done // 250 % 250, self.done % 250, len(body), body)
                    )
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(body_length(head))
            finally:
                writer.transport.abort()

        await self.many(20, guess)


def body_length(head: bytes) -> int:
    """What Content-Length says; 0 where there is none."""
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
