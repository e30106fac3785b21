"""The honest callers, whose times are measured."""

from __future__ import annotations

import asyncio
import time

from bench.attacks.attackers import body_length

CALLERS = 4
PACE_S = 0.005


class Honest:
    """Callers with a token, each on a connection of its own, which it keeps."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._request = (
            b"GET /api/small HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n\r\n"
            % token.encode()
        )
        self._pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.failures = 0

    async def connect(self) -> None:
        """Connect before the attack does."""
        for _ in range(CALLERS):
            self._pairs.append(await asyncio.open_connection("127.0.0.1", self._port))

    async def measure(self, seconds: float) -> list[float]:
        """The times of all responses within so many seconds."""
        times: list[float] = []
        ends = time.monotonic() + seconds

        async def fetch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while time.monotonic() < ends:
                began = time.perf_counter()
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(body_length(head))
                times.append(time.perf_counter() - began)
                self.failures += not head.startswith(b"HTTP/1.1 200 ")
                await asyncio.sleep(PACE_S)

        for result in await asyncio.gather(
            *(fetch(*pair) for pair in self._pairs), return_exceptions=True
        ):
            self.failures += isinstance(result, BaseException)
        return times

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._pairs:
            writer.transport.abort()
