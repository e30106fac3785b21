"""RFC 9113 by its sections, frame by frame: the cases of h2spec, and its fields' rules.

An error of the connection is GOAWAY, one of a stream RST_STREAM or a response with 400, each with
one of the codes that the section allows.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from support.clients.h2_raw import (
    CALM,
    CLOSED,
    COMPRESSION,
    FLOW,
    GET,
    PREFACE,
    PROTOCOL,
    REFUSED,
    SIZE,
    RawH2Client,
    goaway_code,
    raw_frame,
)
from support.deadlines import until, within
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

DATA, HEADERS, _, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
POST = [(":method", "POST"), *GET[1:]]
Frames = list[Frame | bytes]
Case = Callable[[RawH2Client], Frames]

CONNECTION_ERRORS: list[tuple[str, Case, set[int]]] = [
    ("4.2 frame too large", lambda c: [c.head(1, POST, ends=False),
        raw_frame(DATA, 0, 1, bytes(16_385))], {SIZE}),
    ("4.2 SETTINGS of a wrong size", lambda c: [raw_frame(SETTINGS, 0, 0, b"12345")], {SIZE}),
    ("4.3 header block that is no HPACK", lambda c: [
        HeadersFrame(1, flags={"END_HEADERS"}, data=b"\xff\xff\xff\xff\xff\xff\xff")],
        {COMPRESSION, PROTOCOL}),
    ("4.3 frame within a header block", lambda c: [
        HeadersFrame(1, flags=set(), data=b"\x82"), PingFrame(0, opaque_data=b"12345678")],
        {PROTOCOL}),
    ("4.3 header block continued on another stream", lambda c: [
        HeadersFrame(1, flags=set(), data=b"\x82"), ContinuationFrame(3, data=b"\x86")],
        {PROTOCOL}),
    ("5.1 DATA on an idle stream", lambda c: [DataFrame(1, data=b"x")], {PROTOCOL}),
    ("5.1 RST_STREAM on an idle stream", lambda c: [RstStreamFrame(1)], {PROTOCOL}),
    ("5.1 WINDOW_UPDATE on an idle stream", lambda c: [WindowUpdateFrame(1, window_increment=1)],
        {PROTOCOL}),
    ("5.1 CONTINUATION on an idle stream", lambda c: [
        ContinuationFrame(1, flags={"END_HEADERS"}, data=b"\x82")], {PROTOCOL}),
    ("5.1 HEADERS behind the end of a stream", lambda c: [c.head(1), c.head(1)],
        {CLOSED, PROTOCOL}),
    ("5.1.1 even stream", lambda c: [c.head(2)], {PROTOCOL}),
    ("6.1 DATA on stream 0", lambda c: [raw_frame(DATA, 0, 0, b"x")], {PROTOCOL}),
    ("6.1 padding longer than DATA", lambda c: [c.head(1, POST, ends=False),
        raw_frame(DATA, 0x8, 1, b"\xff1234")], {PROTOCOL}),
    ("6.2 HEADERS on stream 0", lambda c: [raw_frame(HEADERS, 0x5, 0, b"\x82\x86\x84")],
        {PROTOCOL}),
    ("6.2 padding longer than HEADERS", lambda c: [raw_frame(HEADERS, 0xD, 1, b"\xff\x82\x86")],
        {PROTOCOL}),
    ("6.4 RST_STREAM on stream 0", lambda c: [raw_frame(RST, 0, 0, bytes(4))], {PROTOCOL}),
    ("6.4 RST_STREAM of a wrong size", lambda c: [c.head(1, POST, ends=False),
        raw_frame(RST, 0, 1, bytes(3))], {SIZE}),
    ("6.5 SETTINGS ACK with settings", lambda c: [raw_frame(SETTINGS, 1, 0, bytes(6))], {SIZE}),
    ("6.5 SETTINGS on a stream", lambda c: [raw_frame(SETTINGS, 0, 1, b"")], {PROTOCOL}),
    ("6.5.2 ENABLE_PUSH that is no flag", lambda c: [SettingsFrame(0, settings={2: 2})],
        {PROTOCOL}),
    ("6.5.2 INITIAL_WINDOW_SIZE above its maximum", lambda c: [
        SettingsFrame(0, settings={4: 2**31})], {FLOW}),
    ("6.5.2 MAX_FRAME_SIZE below its minimum", lambda c: [SettingsFrame(0, settings={5: 16_383})],
        {PROTOCOL}),
    ("6.5.2 MAX_FRAME_SIZE above its maximum", lambda c: [SettingsFrame(0, settings={5: 2**24})],
        {PROTOCOL}),
    ("6.6 PUSH_PROMISE of a client", lambda c: [c.head(1, POST, ends=False),
        raw_frame(PUSH, 0x4, 1, struct.pack("!I", 2) + b"\x82")], {PROTOCOL}),
    ("6.7 PING on a stream", lambda c: [raw_frame(PING, 0, 1, bytes(8))], {PROTOCOL}),
    ("6.7 PING of a wrong size", lambda c: [raw_frame(PING, 0, 0, bytes(6))], {SIZE}),
    ("6.8 GOAWAY on a stream", lambda c: [raw_frame(GOAWAY, 0, 1, bytes(8))], {PROTOCOL}),
    ("6.9 WINDOW_UPDATE by 0", lambda c: [raw_frame(WINDOW, 0, 0, bytes(4))], {PROTOCOL}),
    ("6.9 WINDOW_UPDATE of a wrong size", lambda c: [raw_frame(WINDOW, 0, 0, bytes(3))], {SIZE}),
    ("6.9.1 window of the connection above its maximum", lambda c: [
        WindowUpdateFrame(0, window_increment=2**31 - 1)] * 2, {FLOW}),
    ("6.10 CONTINUATION behind END_HEADERS", lambda c: [c.head(1, POST, ends=False),
        ContinuationFrame(1, flags={"END_HEADERS"}, data=b"\x82")], {PROTOCOL}),
    ("6.10 CONTINUATION on stream 0", lambda c: [
        HeadersFrame(1, flags=set(), data=b"\x82"), raw_frame(CONTINUATION, 0x4, 0, b"\x86")],
        {PROTOCOL}),
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
    await attacker.frames()  # it is closed, in both directions
    assert gateway.gateway.metrics.data_plane.h2.errors["protocol"] == 1
    await attacker.close()
    await until(lambda: gateway.gateway.metrics.data_plane.inflight_requests == 0)


async def test_3_4_the_first_frame_is_settings(gateway: RunningGateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    client = RawH2Client(reader, writer)
    client.send(PREFACE, PingFrame(0, opaque_data=b"12345678"))
    first, *others = await client.frames()
    assert isinstance(first, SettingsFrame)
    assert SettingsFrame.ENABLE_CONNECT_PROTOCOL not in first.settings  # RFC 8441
    assert goaway_code(others) == PROTOCOL
    await client.close()


def fields(*extra: tuple[str, str], without: str = "", pseudo: list[tuple[str, str]] = GET) -> Case:
    """A request with more fields, or without one."""
    return lambda c: [c.head(1, [*(one for one in pseudo if one[0] != without), *extra])]


STREAM_ERRORS: list[tuple[str, Case]] = [
    ("5.1 DATA behind the end of a stream", lambda c: [
        c.head(1, [*POST, ("content-length", "0")]), DataFrame(1, data=b"x")]),
    ("8.1 trailers that do not end the stream", lambda c: [c.head(1, POST, ends=False),
        c.head(1, [("x-trailer", "1")], ends=False)]),
    ("8.1 pseudo-field in trailers", lambda c: [c.head(1, POST, ends=False),
        c.head(1, [(":path", "/other")])]),
    ("8.1.1 content-length above DATA", lambda c: [
        c.head(1, [*POST, ("content-length", "2")], ends=False),
        DataFrame(1, data=b"x", flags={"END_STREAM"})]),
    ("8.1.1 content-length below DATA, in several frames", lambda c: [
        c.head(1, [*POST, ("content-length", "1")], ends=False),
        DataFrame(1, data=b"x"), DataFrame(1, data=b"y", flags={"END_STREAM"})]),
    ("8.1.1 content-length without DATA", fields(("content-length", "1"))),
    ("8.1.1 two lengths", fields(("content-length", "1"), ("content-length", "2"))),
    ("8.1.1 malformed length", fields(("content-length", "+1"))),
    ("8.2.1 upper-case name", fields(("X-Upper", "1"))),
    ("8.2.1 empty name", fields(("", "1"))),
    ("8.2.1 colon in a name", fields(("x:y", "1"))),
    ("8.2.1 space in a name", fields(("x y", "1"))),
    ("8.2.1 NUL in a value", fields(("x-value", "a\0b"))),
    ("8.2.1 CR and LF in a value", fields(("x-value", "a\r\nTransfer-Encoding: chunked"))),
    ("8.2.1 LF in a value", fields(("x-value", "a\nb"))),
    ("8.2.1 space around a value", fields(("x-value", " a "))),
    ("8.2.2 connection", fields(("connection", "keep-alive"))),
    ("8.2.2 transfer-encoding", fields(("transfer-encoding", "chunked"))),
    ("8.2.2 keep-alive", fields(("keep-alive", "5"))),
    ("8.2.2 proxy-connection", fields(("proxy-connection", "close"))),
    ("8.2.2 upgrade", fields(("upgrade", "websocket"))),
    ("8.2.2 te", fields(("te", "gzip"))),
    ("8.3 unknown pseudo-field", fields((":unknown", "1"))),
    ("8.3 pseudo-field of a response", fields((":status", "200"))),
    ("8.3 pseudo-field behind others", lambda c: [c.head(1, [("x", "1"), *GET])]),
    ("8.3.1 no method", fields(without=":method")),
    ("8.3.1 no scheme", fields(without=":scheme")),
    ("8.3.1 no path", fields(without=":path")),
    ("8.3.1 no authority and no Host", fields(without=":authority")),
    ("8.3.1 two paths", fields(pseudo=[*GET, (":path", "/api")])),
    ("8.3.1 empty path", fields(pseudo=[*GET[:3], (":path", "")])),
    ("8.3.1 path that is a URL", fields(pseudo=[*GET[:3], (":path", "http://other/")])),
    ("8.3.1 space in a path", fields(pseudo=[*GET[:3], (":path", "/public HTTP/1.1\r\nX: y")])),
    ("8.3.1 path that is not ASCII", fields(pseudo=[*GET[:3], (":path", "/public/\xe9")])),
    ("8.3.1 fragment", fields(pseudo=[*GET[:3], (":path", "/public#x")])),
    ("8.3.1 Host that is not the authority", fields(("host", "other"))),
    ("8.3.1 two Hosts", fields(("host", "h"), ("host", "h"))),
    ("8.3.1 user in the authority", fields(pseudo=[*GET[:2], (":authority", "u@h"), GET[3]])),
    ("8.3.1 scheme of another protocol", fields(pseudo=[GET[0], (":scheme", "ftp"), *GET[2:]])),
    ("8.3.1 lower-case method", fields(pseudo=[(":method", "get"), *GET[1:]])),
    ("8.5 CONNECT", lambda c: [c.head(1, [(":method", "CONNECT"), (":authority", "h:443")])]),
    ("RFC 8441 CONNECT to a protocol", fields(
        (":protocol", "websocket"), pseudo=[(":method", "CONNECT"), *GET[1:]])),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", [one[1] for one in STREAM_ERRORS], ids=[one[0] for one in STREAM_ERRORS]
)
async def test_error_of_a_stream(
    attacker: RawH2Client, gateway: RunningGateway, upstream: RawUpstream, case: Case
) -> None:
    attacker.send(*case(attacker))
    # Another request on the connection is served, unless the engine has ended it.
    attacker.send(attacker.head(7))
    seen: list[Frame] = []
    while True:
        seen.append(await attacker.frame(Frame))
        frame = seen[-1]
        if isinstance(frame, GoAwayFrame):
            assert frame.error_code in {PROTOCOL, CLOSED, CALM, SIZE}
            break
        if isinstance(frame, HeadersFrame) and frame.stream_id == 7:
            own = [one for one in seen if one.stream_id == 1]
            is_reset = any(
                isinstance(one, RstStreamFrame) and one.error_code in {PROTOCOL, CLOSED, REFUSED}
                for one in own
            )
            heads = [one for one in own if isinstance(one, HeadersFrame)]
            assert is_reset or heads
            statuses = {attacker.status_of(one) for one in heads}
            assert statuses <= {400, 501}
            break
    # Nothing whole of it reached the upstream, and each request is logged once.
    count = 1 if isinstance(seen[-1], GoAwayFrame) else 2
    lines = await gateway.logged(count)
    assert len(lines) == count
    assert {line["status"] for line in lines if line["status"] != 200} <= {400, 499, 501}
    assert [one.body for one in upstream.requests] in ([], [b""])


async def test_6_7_pings_are_acknowledged_and_unknown_frames_ignored(
    attacker: RawH2Client,
) -> None:
    attacker.send(
        raw_frame(0x42, 0xFF, 0, b"unknown"),
        SettingsFrame(0, settings={0x99: 1}),
        PingFrame(0, opaque_data=b"acknowls", flags={"ACK"}),
        PingFrame(0, opaque_data=b"12345678"),
    )
    frame = await attacker.frame(PingFrame)
    assert isinstance(frame, PingFrame)
    assert frame.opaque_data == b"12345678"
    assert "ACK" in frame.flags


async def test_6_9_2_a_smaller_initial_window_applies_to_open_streams(
    attacker: RawH2Client, upstream: RawUpstream
) -> None:
    upstream.respond = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    attacker.send(SettingsFrame(0, settings={4: 1}), attacker.head(1))
    first = await attacker.frame(DataFrame, 1)
    assert isinstance(first, DataFrame)
    assert first.data == b"a"
    attacker.send(SettingsFrame(0, settings={4: 3}))
    second = await attacker.frame(DataFrame, 1)
    assert isinstance(second, DataFrame)
    assert second.data == b"bc"
    assert "END_STREAM" in second.flags


async def test_5_1_2_streams_above_the_limit_are_refused(
    attacker: RawH2Client, gateway: RunningGateway
) -> None:
    # The limit is not acknowledged yet; afterwards, it would be an error of the connection.
    attacker.send(*(attacker.head(2 * number + 1, POST, ends=False) for number in range(101)))
    frame = await attacker.frame(RstStreamFrame)
    assert isinstance(frame, RstStreamFrame)
    assert (frame.stream_id, frame.error_code) == (201, REFUSED)
    [line] = await gateway.logged(1)
    assert (line["status"], line["reason"]) == (503, "too_many_streams")
    assert gateway.gateway.metrics.data_plane.h2.errors["streams"] == 1


async def test_work_that_is_not_cancelled_yet_counts_for_the_limit(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"http2": {"max_concurrent_streams": 2}})
    client = await RawH2Client.connect(gateway.port)
    token = [(":method", "POST"), *GET[1:3], (":path", "/token")]
    client.send(client.head(1, token, ends=False), client.head(3, token, ends=False))
    counts = gateway.gateway.metrics.data_plane
    await until(lambda: counts.inflight_requests == 2)
    # Their tasks end with the next turn of the loop.
    client.send(RstStreamFrame(1), RstStreamFrame(3), client.head(5))
    frame = await client.frame(RstStreamFrame)
    assert isinstance(frame, RstStreamFrame)
    assert (frame.stream_id, frame.error_code) == (5, REFUSED)
    assert counts.h2.errors["streams"] == 1
    await until(lambda: counts.inflight_requests == 0)
    served = 7  # the connection knows of the end of that work a turn of the loop later
    async with within():
        while True:
            client.send(client.head(served))
            if isinstance(await client.frame((HeadersFrame, RstStreamFrame), served), HeadersFrame):
                break
            served += 2
    # Those that had to wait were refused, as stream 5 was.
    lines = await gateway.logged(4 + (served - 7) // 2)
    reasons = sorted(str(line.get("reason")) for line in lines)
    assert reasons[:3] == ["None", "client_closed", "client_closed"]
    assert {*reasons[3:]} == {"too_many_streams"}
    await client.close()


async def test_heads_above_the_limits_are_431(attacker: RawH2Client) -> None:
    many = [*GET, *((f"x-{number}", "1") for number in range(120))]
    large = [*GET, *((f"x-{number}", "a" * 3000) for number in range(12))]
    for stream, head in ((1, many), (3, large)):
        block = attacker.encoder.encode(head)
        first, rest = (
            block[:16_000],
            [block[at : at + 16_000] for at in range(16_000, len(block), 16_000)],
        )
        flags = {"END_STREAM"} if rest else {"END_STREAM", "END_HEADERS"}
        attacker.send(HeadersFrame(stream, flags=flags, data=first))
        for number, piece in enumerate(rest, 1):
            end = {"END_HEADERS"} if number == len(rest) else set()
            attacker.send(ContinuationFrame(stream, flags=end, data=piece))
        frame = await attacker.frame(HeadersFrame, stream)
        assert isinstance(frame, HeadersFrame)
        assert attacker.status_of(frame) == 431
