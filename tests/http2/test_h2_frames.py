"""Frames and header blocks by RFC 9113 and RFC 7541: what h2spec sends beside the cases of
`test_h2_conformance`, its generic ones and those of HPACK among them.

h2spec's numbers are in the names: `generic`, and sections of RFC 7540 where RFC 9113 has others.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from http2.test_h2_conformance import HEADERS, POST, RST, Case
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from support.clients.h2_raw import (
    CALM,
    CANCEL,
    CLOSED,
    COMPRESSION,
    FLOW,
    GET,
    PROTOCOL,
    SIZE,
    RawH2Client,
    raw_frame,
)
from support.deadlines import until
from support.running_gateway import RunningGateway
from support.servers.raw_upstream import RawUpstream

PRIORITY = 2
WHOLE = b"\x82\x86\x41\x01h\x04\x07/public"
"""GET, http, `:authority: h` (which becomes index 62), `:path: /public`."""


def block(data: bytes) -> Case:
    """A request whose header block is this."""
    return lambda _: [raw_frame(HEADERS, 0x5, 1, data)]


def posted(*frames: Frame | bytes) -> Case:
    """A request that ends with these frames."""
    return lambda c: [c.head(1, POST, ends=False), *frames]


TAKEN: list[tuple[str, Case]] = [
    ("generic 2 PRIORITY on an idle stream", lambda c: [PriorityFrame(1, depends_on=0), c.head(1)]),
    ("generic 3.1 DATA", posted(DataFrame(1, data=b"x", flags={"END_STREAM"}))),
    ("generic 3.1 several DATA", posted(DataFrame(1, data=b"x"),
        DataFrame(1, data=b"y", flags={"END_STREAM"}))),
    ("generic 3.1 DATA with padding", posted(
        DataFrame(1, data=b"x", pad_length=9, flags={"END_STREAM", "PADDED"}))),
    ("generic 3.2 HEADERS with padding", lambda c: [
        raw_frame(HEADERS, 0xD, 1, b"\x05" + c.encoder.encode(GET) + bytes(5))]),
    ("generic 3.2 HEADERS with priority", lambda c: [
        raw_frame(HEADERS, 0x25, 1, b"\0\0\0\0\xff" + c.encoder.encode(GET))]),
    ("generic 3.3 PRIORITY of any weight", lambda c: [
        *(PriorityFrame(1, depends_on=on, stream_weight=weight, exclusive=exclusive)
          for on, weight, exclusive in ((0, 0, False), (0, 255, False), (3, 9, True))), c.head(1)]),
    ("generic 3.5 SETTINGS", lambda c: [SettingsFrame(0, settings={3: 100}), c.head(1)]),
    ("generic 3.9 WINDOW_UPDATE", lambda c: [WindowUpdateFrame(0, window_increment=1),
        c.head(1, POST, ends=False), WindowUpdateFrame(1, window_increment=1),
        DataFrame(1, flags={"END_STREAM"})]),
    ("generic 3.10 CONTINUATION", lambda c: [
        HeadersFrame(1, flags={"END_STREAM"}, data=WHOLE[:4]),
        *(ContinuationFrame(1, data=WHOLE[at:at + 3]) for at in range(4, len(WHOLE), 3)),
        ContinuationFrame(1, flags={"END_HEADERS"}, data=b"")]),
    ("generic 4 POST with trailers", lambda c: [c.head(1, POST, ends=False),
        DataFrame(1, data=b"x"), c.head(1, [("x-trailer", "1")])]),
    ("4.1 undefined flags", lambda c: [raw_frame(6, 0xFE, 0, b"12345678"), c.head(1)]),
    ("4.1 reserved bit", lambda c: [raw_frame(6, 0, 1 << 31, b"12345678"), c.head(1)]),
    ("4.2 DATA of the greatest size", posted(
        DataFrame(1, data=bytes(16_384), flags={"END_STREAM"}))),
    ("5.5 unknown frame on a stream", posted(raw_frame(0x66, 0, 1, b"unknown"),
        DataFrame(1, flags={"END_STREAM"}))),
    ("6.5.2 unknown setting", lambda c: [SettingsFrame(0, settings={0xFF: 1}), c.head(1)]),
    ("6.5.3 one setting several times", lambda c: [
        raw_frame(4, 0, 0, b"\0\4\0\0\0\1" + b"\0\4\0\0\xff\xff"), c.head(1)]),
    ("7 unknown error code of RST_STREAM", lambda c: [c.head(3, POST, ends=False),
        raw_frame(RST, 0, 3, b"\0\0\0\xff"), c.head(1 + 4)]),
    ("HPACK 6.1 indexed", block(WHOLE)),
    ("HPACK 6.2.1 literal with indexing, known name", block(WHOLE + b"\x7a\x01a\xbe")),
    ("HPACK 6.2.1 literal with indexing, new name", block(WHOLE + b"\x40\x01x\x01y\xbe")),
    ("HPACK 6.2.2 literal without indexing, new name", block(WHOLE + b"\x00\x01x\x01y")),
    ("HPACK 6.2.3 literal never indexed, known name", block(WHOLE + b"\x1f\x2b\x01a")),
    ("HPACK 6.2.3 literal never indexed, new name", block(WHOLE + b"\x10\x01x\x01y")),
    ("HPACK 6.3 size updates at the beginning", block(b"\x20\x3f\xe1\x1f" + WHOLE)),
    ("HPACK 5.2 Huffman", block(WHOLE + b"\x00\x01x\x81\x1f")),
]  # fmt: skip


@pytest.mark.parametrize("case", [one[1] for one in TAKEN], ids=[one[0] for one in TAKEN])
async def test_taken(attacker: RawH2Client, gateway: RunningGateway, case: Case) -> None:
    attacker.send(*case(attacker))
    frame = await attacker.frame((HeadersFrame, GoAwayFrame, RstStreamFrame))
    assert isinstance(frame, HeadersFrame), frame
    assert attacker.status_of(frame) == 200
    assert gateway.gateway.metrics.data_plane.h2.errors["protocol"] == 0


CONNECTION_ERRORS: list[tuple[str, Case, set[int]]] = [
    ("4.2 HEADERS too large", lambda c: [raw_frame(HEADERS, 0x5, 1, bytes(16_385))], {SIZE}),
    ("4.3 PRIORITY within a header block", lambda c: [
        HeadersFrame(1, flags=set(), data=b"\x82"), PriorityFrame(1, depends_on=0)], {PROTOCOL}),
    ("4.3 HEADERS of another stream within a block", lambda c: [
        HeadersFrame(1, flags=set(), data=b"\x82"), c.head(3)], {PROTOCOL}),
    ("5.5 unknown frame within a header block", lambda c: [
        HeadersFrame(1, flags=set(), data=b"\x82"), raw_frame(0x66, 0, 0, b"x")], {PROTOCOL}),
    ("6.9.2 window of a stream above its maximum by SETTINGS", lambda c: [
        c.head(1, POST, ends=False), WindowUpdateFrame(1, window_increment=2**31 - 70_000),
        SettingsFrame(0, settings={4: 2**31 - 1})], {FLOW}),
    ("6.10 CONTINUATION behind the end of one", lambda c: [
        HeadersFrame(1, flags=set(), data=WHOLE), ContinuationFrame(1, flags={"END_HEADERS"}),
        ContinuationFrame(1, flags={"END_HEADERS"}, data=b"\x82")], {PROTOCOL}),
    ("6.10 CONTINUATION behind DATA", posted(DataFrame(1, data=b"x"),
        ContinuationFrame(1, flags={"END_HEADERS"}, data=b"\x82")), {PROTOCOL}),
    ("HPACK 2.3.3 index beyond the table", block(WHOLE + b"\xff\x10"), {COMPRESSION}),
    ("HPACK 2.3.3 index of a name beyond the table", block(WHOLE + b"\x7f\x20\x01x"),
        {COMPRESSION}),
    ("HPACK 4.2 size update behind a field", block(WHOLE + b"\x20"), {COMPRESSION}),
    ("HPACK 5.1 integer without an end", block(WHOLE + b"\x7f" + b"\xff" * 12), {COMPRESSION}),
    ("HPACK 5.2 padding of more than 7 bits", block(WHOLE + b"\x00\x01x\x82\x1f\xff"),
        {COMPRESSION}),
    ("HPACK 5.2 padding of zeros", block(WHOLE + b"\x00\x01x\x81\x18"), {COMPRESSION}),
    ("HPACK 5.2 EOS", block(WHOLE + b"\x00\x01x\x84\xff\xff\xff\xff"), {COMPRESSION}),
    ("HPACK 5.2 string longer than the block", block(WHOLE + b"\x00\x01x\x7fy"), {COMPRESSION}),
    ("HPACK 6.1 index 0", block(WHOLE + b"\x80"), {COMPRESSION}),
    ("HPACK 6.3 size above what SETTINGS allow", block(b"\x3f\xe2\x1f" + WHOLE), {COMPRESSION}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "codes"),
    [one[1:] for one in CONNECTION_ERRORS],
    ids=[one[0] for one in CONNECTION_ERRORS],
)
async def test_error_of_the_connection(
    attacker: RawH2Client, gateway: RunningGateway, case: Case, codes: set[int]
) -> None:
    attacker.send(*case(attacker))
    frame = await attacker.frame(GoAwayFrame)
    assert isinstance(frame, GoAwayFrame)
    assert frame.error_code in codes
    await attacker.frames()
    counts = gateway.gateway.metrics.data_plane
    assert counts.h2.errors["protocol"] == 1
    await until(lambda: counts.inflight_requests == 0)


STREAM_ERRORS: list[tuple[str, Case, set[int]]] = [
    ("6.3 PRIORITY of a wrong size", posted(raw_frame(PRIORITY, 0, 1, bytes(4))), {SIZE}),
    ("6.9 WINDOW_UPDATE by 0", posted(WindowUpdateFrame(1, window_increment=0)), {PROTOCOL}),
    ("6.9.1 window of a stream above its maximum", posted(
        *[WindowUpdateFrame(1, window_increment=2**31 - 1)] * 2), {FLOW}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "codes"), [one[1:] for one in STREAM_ERRORS], ids=[one[0] for one in STREAM_ERRORS]
)
async def test_error_of_a_stream(
    attacker: RawH2Client, gateway: RunningGateway, case: Case, codes: set[int]
) -> None:
    """The connection may end with it (RFC 9113 section 5.4)."""
    attacker.send(*case(attacker))
    frame = await attacker.frame((RstStreamFrame, GoAwayFrame))
    assert isinstance(frame, RstStreamFrame | GoAwayFrame)
    assert frame.error_code in codes
    await until(lambda: gateway.gateway.metrics.data_plane.inflight_requests == 0)


LATE: list[tuple[str, Callable[[RawH2Client], Frame | bytes]]] = [
    ("DATA", lambda c: DataFrame(1, data=b"late")),
    ("HEADERS", lambda c: c.head(1, [("x-late", "1")])),
    ("CONTINUATION", lambda c: ContinuationFrame(1, flags={"END_HEADERS"}, data=b"\x82")),
    ("RST_STREAM", lambda c: RstStreamFrame(1, error_code=CANCEL)),
    ("WINDOW_UPDATE", lambda c: WindowUpdateFrame(1, window_increment=1)),
    ("PRIORITY", lambda c: PriorityFrame(1, depends_on=0)),
]
"""What may have crossed the end of a stream on the wire is no error, or it is one that the section
names; either way, it changes nothing."""


@pytest.mark.parametrize("by", ["END_STREAM", "RST_STREAM", "the response"])
@pytest.mark.parametrize("late", [one[1] for one in LATE], ids=[one[0] for one in LATE])
async def test_5_1_frames_behind_the_end_of_a_stream_change_nothing(
    attacker: RawH2Client,
    gateway: RunningGateway,
    upstream: RawUpstream,
    late: Callable[[RawH2Client], Frame | bytes],
    by: str,
) -> None:
    if by == "RST_STREAM":
        attacker.send(attacker.head(1, POST, ends=False), RstStreamFrame(1, error_code=CANCEL))
    else:
        attacker.send(attacker.head(1))
        if by == "the response":
            head = await attacker.frame(HeadersFrame, 1)
            assert isinstance(head, HeadersFrame)
            assert attacker.status_of(head) == 200
            await attacker.frame(DataFrame, 1)
    attacker.send(late(attacker), attacker.head(3), PingFrame(0, opaque_data=b"12345678"))
    while True:
        frame = await attacker.frame((GoAwayFrame, HeadersFrame, RstStreamFrame))
        if isinstance(frame, HeadersFrame):
            status = attacker.status_of(frame)
            if frame.stream_id == 3:
                assert status == 200
                break
        elif isinstance(frame, GoAwayFrame):
            assert frame.error_code in {PROTOCOL, CLOSED, CALM}
            break
        elif isinstance(frame, RstStreamFrame):
            assert frame.stream_id == 1
            assert frame.error_code in {CLOSED, PROTOCOL, CANCEL}
    await until(lambda: gateway.gateway.metrics.data_plane.inflight_requests == 0)
    assert not any(b"late" in one.body or b"x-late" in one.names() for one in upstream.requests)


@pytest.mark.parametrize(
    "frame",
    [lambda c: c.head(3), lambda c: raw_frame(PRIORITY, 0, 0, bytes(5))],
    ids=["5.1.1 stream below one before", "6.3 PRIORITY on stream 0"],
)
async def test_what_the_engine_ignores_where_it_might_end_the_connection(
    attacker: RawH2Client,
    gateway: RunningGateway,
    frame: Callable[[RawH2Client], Frame | bytes],
) -> None:
    """nghttp2 takes no error for what it need not keep state for; nothing comes of it."""
    attacker.send(attacker.head(5), frame(attacker), attacker.head(7))
    statuses: dict[int, int] = {}
    for _ in range(2):
        head = await attacker.frame(HeadersFrame)
        assert isinstance(head, HeadersFrame)
        statuses[head.stream_id] = attacker.status_of(head)
    assert statuses == {5: 200, 7: 200}
    assert len(await gateway.logged(2)) == 2


async def test_3_4_a_preface_that_is_none_ends_the_connection(gateway: RunningGateway) -> None:
    received = await gateway.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 400 ")


async def test_4_head_and_get_have_the_same_head(
    attacker: RawH2Client, upstream: RawUpstream
) -> None:
    upstream.respond = lambda received: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        + (b"" if received.request_line.startswith(b"HEAD") else b"ok")
    )
    attacker.send(attacker.head(1, [(":method", "HEAD"), *GET[1:]]), attacker.head(3))
    for _ in range(2):
        frame = await attacker.frame(HeadersFrame)
        assert ("END_STREAM" in frame.flags) == (frame.stream_id == 1)
        fields = dict(attacker.decoder.decode(frame.data, raw=True))  # type: ignore[attr-defined]
        assert fields[b"content-length"] == b"2"


async def test_6_9_2_a_window_below_zero_is_waited_for(
    attacker: RawH2Client, upstream: RawUpstream
) -> None:
    upstream.respond = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef"
    attacker.send(SettingsFrame(0, settings={4: 3}), attacker.head(1))
    first = await attacker.frame(DataFrame, 1)
    assert isinstance(first, DataFrame)
    assert first.data == b"abc"
    attacker.send(
        SettingsFrame(0, settings={4: 2}),  # -1
        WindowUpdateFrame(1, window_increment=3),
    )
    second = await attacker.frame(DataFrame, 1)
    assert isinstance(second, DataFrame)
    assert second.data == b"de"
    attacker.send(WindowUpdateFrame(1, window_increment=1))
    third = await attacker.frame(DataFrame, 1)
    assert isinstance(third, DataFrame)
    assert (third.data, "END_STREAM" in third.flags) == (b"f", True)


async def test_6_8_goaway_of_a_client_ends_no_stream(
    attacker: RawH2Client, gateway: RunningGateway
) -> None:
    attacker.send(attacker.head(1), GoAwayFrame(0, last_stream_id=0, error_code=0xFF))
    frame = await attacker.frame(HeadersFrame, 1)
    assert isinstance(frame, HeadersFrame)
    assert attacker.status_of(frame) == 200
    await attacker.frames()  # and then it is closed
