"""A client of HTTP/2 that sends raw frames, right or wrong, made by hyperframe and hpack."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, SettingsFrame
from support.deadlines import within

GET = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/public")]
NO_ERROR, PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION = range(10)
CALM = 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class _Reader(asyncio.StreamReader):
    """Keeps what was received before the connection was reset, as the GOAWAY frame for a client
    that still sends: by default, an error of the connection comes before it."""

    def set_exception(self, exc: Exception) -> None:
        if isinstance(exc, ConnectionError):
            self.feed_eof()
        else:
            super().set_exception(exc)


class RawH2Client:
    """Sends raw frames, and reads what comes back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.encoder = Encoder()
        self.decoder = Decoder()

    @classmethod
    async def connect(cls, port: int, *frames: Frame) -> RawH2Client:
        """Connect, and send the preface and frames."""
        loop, reader = asyncio.get_running_loop(), _Reader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", port)
        client = cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        writer = client.writer
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
        client.send(*frames)
        return client

    def send(self, *frames: Frame | bytes) -> None:
        """Send frames."""
        self.writer.write(
            b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames)
        )

    def head(
        self, stream: int, fields: list[tuple[str, str]] | None = None, *, ends: bool = True
    ) -> HeadersFrame:
        """A whole head."""
        flags = {"END_HEADERS", "END_STREAM"} if ends else {"END_HEADERS"}
        block = self.encoder.encode(fields if fields is not None else GET)
        return HeadersFrame(stream, flags=flags, data=block)

    def status_of(self, frame: HeadersFrame) -> int:
        """The status in a head; every head has to be read, in order."""
        fields = self.decoder.decode(frame.data, raw=True)
        return next(int(value) for name, value in fields if name == b":status")

    async def frames(self) -> list[Frame]:
        """What comes until the connection is closed."""
        data = bytearray()
        async with within():
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    data += piece
        return list(_parse(data))

    async def frame(
        self, kind: type[Frame] | tuple[type[Frame], ...], stream: int | None = None
    ) -> Frame:
        """The next frame of a kind, or of some kinds."""
        async with within():
            while True:
                head = await self.reader.readexactly(9)
                frame, length = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self.reader.readexactly(length)))
                if isinstance(frame, kind) and stream in (None, frame.stream_id):
                    return frame

    async def flood(self, frames: Iterator[Frame | bytes], at_once: int = 100) -> None:
        """Send without an end, or until the connection is closed."""
        with contextlib.suppress(ConnectionError):
            batch: list[bytes] = []
            for one in frames:
                batch.append(one if isinstance(one, bytes) else one.serialize())
                if len(batch) == at_once:
                    self.writer.write(b"".join(batch))
                    await self.writer.drain()
                    await asyncio.sleep(0)  # the gateway is in this loop, and is to have its turn
                    batch.clear()
                    if self.writer.is_closing() or self.reader.at_eof():
                        return
            self.writer.write(b"".join(batch))

    async def close(self) -> None:
        """Close the socket."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def _parse(data: bytearray) -> Iterator[Frame]:
    at, view = 0, memoryview(data)
    while len(view) >= at + 9:
        frame, length = Frame.parse_frame_header(view[at : at + 9])
        if len(view) < at + 9 + length:
            return
        frame.parse_body(view[at + 9 : at + 9 + length])
        yield frame
        at += 9 + length


def goaway_code(frames: list[Frame]) -> int | None:
    codes = [int(frame.error_code) for frame in frames if isinstance(frame, GoAwayFrame)]
    return codes[-1] if codes else None


def raw_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of any kind with any payload."""
    head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
    return head + payload
