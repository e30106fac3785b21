"""Upstreams of HTTP/2 that lie, frame by frame: a client sees one whole response, a clean 502 or a
connection that is cut.

As `test_hardening_responses` for HTTP/1.1: each lie is sent as it stands, then split again and
again, and the next request always gets its own response, by whatever connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hardening.test_hardening_responses import CUT, fetch, the_next_response_is_its_own
from hpack import Decoder
from http2.conftest import upstream_of
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame
from support.clients.h2_raw import CANCEL, INTERNAL, NO_ERROR, REFUSED, raw_frame
from support.protocols import both_protocols
from support.running_gateway import StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream
from support.tiers import slow

pytestmark = [both_protocols, slow("protocols")]

DATA, HEADERS, _, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
ENDS, END_HEADERS, PADDED = 1, 4, 8
BROKEN = {502, CUT}
"""Cut where the head was sent before the lie was seen."""
MAX_SPLIT_BYTES = 150
STEP = 5
"""Bytes between two places at which a lie is split: frames are put together by the engine."""


def literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing, without Huffman."""
    return b"\0" + _size(name) + name + _size(value) + value


def _size(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)])
    rest, digits = len(text) - 127, b"\x7f"
    while rest >= 128:
        digits += bytes([rest % 128 + 128])
        rest //= 128
    return digits + bytes([rest])


@dataclass
class Lying:
    """Makes the frames of a stream."""

    stream: int
    sent: list[bytes] = field(default_factory=list)

    def frame(self, kind: int, flags: int, payload: bytes, stream: int | None = None) -> Lying:
        """Any frame."""
        self.sent.append(raw_frame(kind, flags, self.stream if stream is None else stream, payload))
        return self

    def head(
        self, *fields: tuple[bytes, bytes], status: bytes | None = b"200", ends: bool = False
    ) -> Lying:
        """HEADERS with the status first."""
        pseudo = b"" if status is None else literal(b":status", status)
        block = pseudo + b"".join(literal(*one) for one in fields)
        return self.frame(HEADERS, END_HEADERS | (ENDS if ends else 0), block)

    def data(self, data: bytes = b"ok", *, ends: bool = True) -> Lying:
        """DATA."""
        return self.frame(DATA, ENDS if ends else 0, data)

    def reset(self, code: int) -> Lying:
        """RST_STREAM."""
        return self.frame(RST, 0, code.to_bytes(4))

    def raw(self, data: bytes) -> Lying:
        """Bytes that are no frame."""
        self.sent.append(data)
        return self

    def repeat(self, count: int, act: Callable[[Lying], Lying]) -> Lying:
        """The same again and again."""
        for _ in range(count):
            act(self)
        return self

    def large_head(self, name: bytes, count: int, size: int) -> Lying:
        """A head of many frames: fields of one name."""
        block = literal(b":status", b"200") + count * literal(name, b"v" * size)
        self.frame(HEADERS, ENDS, block[:16_000])
        for at in range(16_000, len(block), 16_000):
            is_last = at + 16_000 >= len(block)
            self.frame(CONTINUATION, END_HEADERS if is_last else 0, block[at : at + 16_000])
        return self


@dataclass(frozen=True)
class Lie:
    """What the upstream sends on a stream, and what the client may see of it."""

    name: str
    make: Callable[[Lying], Lying]
    seen: frozenset[int] | set[int] = frozenset({502})
    body: bytes | None = None
    method: bytes = b"GET"
    closes: bool = False
    """Whether the upstream closes the connection behind it."""


def length(value: bytes) -> tuple[bytes, bytes]:
    return b"content-length", value


def with_field(name: bytes, value: bytes) -> Callable[[Lying], Lying]:
    return lambda lying: lying.head((name, value)).data()


def with_status(status: bytes | None) -> Callable[[Lying], Lying]:
    return lambda lying: lying.head(status=status).data()


BOMB = b"\x88\x40\x04long\x7f\xe1\x1e" + b"v" * 4000 + b"\xbe" * 10_000
"""A field of 4,000 bytes that is named by its index ten thousand times."""

LIES = [
    Lie("length too long", lambda up: up.head(length(b"9")).data(b"ab"), BROKEN),
    Lie("length too short", lambda up: up.head(length(b"2")).data(b"abEVIL"), BROKEN),
    Lie("length without a body", lambda up: up.head(length(b"5"), ends=True), BROKEN),
    Lie("length and then an empty body", lambda up: up.head(length(b"5")).data(b""), BROKEN),
    Lie("length twice", lambda up: up.head(length(b"2"), length(b"4")).data()),
    Lie("length list", lambda up: up.head(length(b"2, 2")).data()),
    Lie("length negative", lambda up: up.head(length(b"-2")).data()),
    Lie("length with a plus", lambda up: up.head(length(b"+2")).data()),
    Lie("length empty", lambda up: up.head(length(b"")).data()),
    Lie("length too large", lambda up: up.head(length(b"9" * 30)).data()),
    Lie("transfer-encoding", with_field(b"transfer-encoding", b"chunked")),
    Lie("connection", with_field(b"connection", b"close")),
    Lie("keep-alive", with_field(b"keep-alive", b"timeout=5")),
    Lie("upgrade", with_field(b"upgrade", b"websocket")),
    Lie("proxy-connection", with_field(b"proxy-connection", b"close")),
    Lie("NUL in a value", with_field(b"x", b"a\0b")),
    Lie("CR in a value", with_field(b"x", b"a\rset-cookie: a=b")),
    Lie("LF in a value", with_field(b"x", b"a\nset-cookie: a=b")),
    Lie("CRLF in a value", with_field(b"x", b"a\r\n\r\nHTTP/1.1 200 OK")),
    Lie("upper-case name", with_field(b"X-Upper", b"1")),
    Lie("space in a name", with_field(b"x y", b"1")),
    Lie("colon in a name", with_field(b"x:y", b"1")),
    Lie("CRLF in a name", with_field(b"x\r\ny", b"1")),
    Lie("empty name", with_field(b"", b"1")),
    Lie("unknown pseudo-field", with_field(b":unknown", b"1")),
    Lie("pseudo-field of a request", with_field(b":path", b"/api")),
    Lie("two statuses", with_field(b":status", b"204")),
    Lie("status behind a field",
        lambda up: up.head((b"x", b"1"), (b":status", b"200"), status=None).data()),
    Lie("no status", with_status(None)),
    Lie("empty status", with_status(b"")),
    Lie("status of two digits", with_status(b"20")),
    Lie("status of four digits", with_status(b"2000")),
    Lie("status below 100", with_status(b"099")),
    Lie("status above 599", with_status(b"600")),
    Lie("status of letters", with_status(b"abc")),
    Lie("status with a reason", with_status(b"200 OK")),
    Lie("status of CRLF", with_status(b"200\r\n")),
    Lie("101", lambda up: up.head((b"upgrade", b"websocket"), status=b"101").data(b"raw")),
    Lie("101 without fields", lambda up: up.head(status=b"101").data(b"raw")),
    Lie("interim response that ends", lambda up: up.head(status=b"103", ends=True)),
    Lie("interim response with a body",
        lambda up: up.head(status=b"103").data(b"evil", ends=False).head().data()),
    Lie("interim responses without end",
        lambda up: up.repeat(40, lambda one: one.head(status=b"103"))),
    Lie("DATA before the head", lambda up: up.data(b"evil", ends=False).head().data()),
    Lie("second head", lambda up: up.head().data(ends=False).head().data(), BROKEN),
    Lie("second head that ends", lambda up: up.head().data(ends=False).head(ends=True), BROKEN),
    Lie("trailers that do not end",
        lambda up: up.head().data(ends=False).head((b"x", b"1"), status=None).data(), BROKEN),
    Lie("pseudo-field in trailers",
        lambda up: up.head().data(ends=False).head((b":path", b"/"), status=None, ends=True),
        BROKEN),
    Lie("204 with a body", lambda up: up.head(status=b"204").data(b"evil"), BROKEN | {204}, b""),
    Lie("204 with a length",
        lambda up: up.head(length(b"4"), status=b"204").data(b"evil"), BROKEN | {204}, b""),
    Lie("304 with a body",
        lambda up: up.head(length(b"4"), status=b"304").data(b"evil"), BROKEN | {304}, b""),
    Lie("HEAD with a body",
        lambda up: up.head(length(b"4")).data(b"evil"), BROKEN | {200}, b"", method=b"HEAD"),
    Lie("frame too large", lambda up: up.head().data(b"x" * 16_385), BROKEN),
    Lie("padding longer than DATA",
        lambda up: up.head().frame(DATA, PADDED | ENDS, b"\xff1234"), BROKEN),
    Lie("more than the window",
        lambda up: up.head().repeat(40, lambda one: one.data(bytes(16_384), ends=False)), BROKEN),
    Lie("window of the stream above its maximum",
        lambda up: up.frame(WINDOW, 0, b"\x7f\xff\xff\xff").head().data()),
    Lie("window of the connection above its maximum",
        lambda up: up.frame(WINDOW, 0, b"\x7f\xff\xff\xff", 0).head().data()),
    Lie("WINDOW_UPDATE by 0", lambda up: up.frame(WINDOW, 0, bytes(4)).head().data()),
    Lie("head on a stream that is idle",
        lambda up: up.frame(HEADERS, 5, literal(b":status", b"200"), up.stream + 2)),
    Lie("head on an even stream", lambda up: up.frame(HEADERS, 5, literal(b":status", b"200"), 2)),
    Lie("head on stream 0", lambda up: up.frame(HEADERS, 5, literal(b":status", b"200"), 0)),
    Lie("PUSH_PROMISE",
        lambda up: up.frame(PUSH, END_HEADERS, b"\0\0\0\2\x82\x86\x84\x41\x01h").head().data()),
    Lie("no HPACK", lambda up: up.frame(HEADERS, 5, b"\xff\xff\xff\xff\xff\xff\xff")),
    Lie("frame within a head",
        lambda up: up.frame(HEADERS, 0, b"\x88").frame(PING, 0, bytes(8), 0)),
    Lie("HPACK bomb", lambda up: up.frame(HEADERS, ENDS | END_HEADERS, BOMB)),
    Lie("head too large", lambda up: up.large_head(b"x-large", 20, 4000)),
    Lie("head of too many fields", lambda up: up.large_head(b"x", 2000, 1)),
    Lie("CONTINUATION without end", lambda up: up.frame(HEADERS, 0, b"\x88").repeat(
        2000, lambda one: one.frame(CONTINUATION, 0, b""))),
    Lie("SETTINGS of a wrong size", lambda up: up.frame(SETTINGS, 0, b"12345", 0)),
    Lie("reset before the head", lambda up: up.reset(INTERNAL)),
    Lie("reset without an error", lambda up: up.reset(NO_ERROR)),
    Lie("cancelled by the upstream", lambda up: up.reset(CANCEL)),
    Lie("reset in the body",
        lambda up: up.head(length(b"4")).data(ends=False).reset(INTERNAL), BROKEN),
    Lie("reset in the body without an error",
        lambda up: up.head().data(ends=False).reset(NO_ERROR), BROKEN),
    Lie("refused in the body", lambda up: up.head().data(ends=False).reset(REFUSED), BROKEN),
    Lie("closed before the head", lambda up: up, closes=True),
    Lie("closed in the head", lambda up: up.frame(HEADERS, 0, b"\x88"), closes=True),
    Lie("closed in the body", lambda up: up.head().data(ends=False), {CUT}, closes=True),
    Lie("GOAWAY, and closed in the body", lambda up: up.head().data(ends=False).frame(
        GOAWAY, 0, up.stream.to_bytes(4) + bytes(4), 0), {CUT}, closes=True),
    Lie("HTTP/1.1", lambda up: up.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")),
    # What is odd and no lie.
    Lie("two responses", lambda up: up.head().data().head().data(b"evil"), {200}, b"ok"),
    Lie("DATA behind the end", lambda up: up.head().data().data(b"evil"), {200}, b"ok"),
    Lie("reset behind the end", lambda up: up.head().data().reset(CANCEL), {200}, b"ok"),
    Lie("length twice, the same", lambda up: up.head(length(b"2"), length(b"2")).data(),
        {200, 502}),
    Lie("no length", lambda up: up.head().data(), {200}, b"ok"),
    Lie("empty DATA at the end", lambda up: up.head().data(ends=False).data(b""), {200}, b"ok"),
    Lie("padding", lambda up: up.head().frame(DATA, PADDED | ENDS, b"\x03ok\0\0\0"), {200}, b"ok"),
    Lie("trailers", lambda up: up.head().data(ends=False).head((b"x", b"1"), status=None,
        ends=True), {200}, b"ok"),
    Lie("HEAD with a length", lambda up: up.head(length(b"4"), ends=True), {200}, b"",
        method=b"HEAD"),
    Lie("304 with a length", lambda up: up.head(length(b"4"), status=b"304", ends=True), {304},
        b""),
    Lie("interim, then a response", lambda up: up.head((b"link", b"</a>"), status=b"103").head()
        .data(), {200}, b"ok"),
    Lie("unknown frames", lambda up: up.frame(0x66, 0xFF, b"x").head().frame(0x66, 0, b"").data(),
        {200}, b"ok"),
]  # fmt: skip


def test_lies_have_names_of_their_own() -> None:
    assert len({lie.name for lie in LIES}) == len(LIES)


class Liar:
    """A script that speaks HTTP/2 by hand, and lies once on each connection."""

    def __init__(self, lie: Lie) -> None:
        self.lie = lie
        self.split_at = 0

    async def __call__(self, conversation: Conversation, upstream: RawUpstream) -> None:
        reader, decoder = conversation.reader, Decoder()
        await reader.readexactly(24)
        await conversation.send(SettingsFrame(0).serialize())
        while True:
            try:
                head = await reader.readexactly(9)
                frame, size = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await reader.readexactly(size)))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                await conversation.send(SettingsFrame(0, flags={"ACK"}).serialize())
            elif isinstance(frame, HeadersFrame):
                fields = dict(decoder.decode(frame.data, raw=True))
                lying = Lying(frame.stream_id)
                if fields[b":path"] == b"/public/next":
                    await conversation.send(b"".join(lying.head().data().sent))
                    continue
                await self._lie(conversation, b"".join(self.lie.make(lying).sent))
                if self.lie.closes:
                    return

    async def _lie(self, conversation: Conversation, sent: bytes) -> None:
        at = self.split_at
        for piece in filter(None, (sent[:at], sent[at:])):
            await conversation.send(piece)
            for _ in range(2):  # loopback delivers at once: let it be read by itself
                await asyncio.sleep(0)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
async def test_client_sees_one_whole_response_or_none(start: StartGateway, lie: Lie) -> None:
    liar = Liar(lie)
    async with RawUpstream(script=liar) as upstream:
        gateway = await start("", upstreams=upstream_of(upstream.url, retries={"attempts": 0}))
        size = len(b"".join(lie.make(Lying(1)).sent))
        for liar.split_at in range(0, min(max(size, 1), MAX_SPLIT_BYTES), STEP):
            client = await gateway.connect()
            seen = await fetch(client, lie.method)
            assert seen.status in lie.seen, liar.split_at
            if lie.body is not None and seen.status not in BROKEN:
                assert seen.body == lie.body, liar.split_at
            await the_next_response_is_its_own(gateway, client)
            await client.close()
            gateway.clients.clear()
        # Whatever it was, nothing of it is left.
        sample = "gateway_upstream_requests"
        assert await gateway.metric(sample, upstream="main", state="active") == 0
        assert await gateway.metric("gateway_inflight_requests") == 0
