"""The HTTP/2 engine, with hyper-h2 as an independent peer for both roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from hyperframe.frame import ContinuationFrame, HeadersFrame

from gateway.http.h2 import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    PREFACE,
    Fields,
    H2Error,
    goaway,
)
from gateway.http.h2_engine import H2Engine

GET = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")]
OK: Fields = ((b":status", b"200"),)


class Recorder:
    """Keeps the events of an engine."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def head_received(self, stream_id: int, fields: Fields, ends: bool) -> None:
        self.seen.append(("head", stream_id, fields, ends))

    def informational_received(self, stream_id: int, fields: Fields) -> None:
        self.seen.append(("informational", stream_id, fields))

    def body_received(self, stream_id: int, data: bytes, ends: bool) -> None:
        self.seen.append(("data", stream_id, data, ends))

    def trailers_received(self, stream_id: int, fields: Fields) -> None:
        self.seen.append(("trailers", stream_id, fields))

    def stream_reset(self, stream_id: int, code: int) -> None:
        self.seen.append(("reset", stream_id, code))

    def stream_closed(self, stream_id: int, code: int) -> None:
        self.seen.append(("closed", stream_id, code))

    def window_updated(self, stream_id: int, increment: int) -> None:
        self.seen.append(("window", stream_id, increment))

    def settings_received(self, settings: Mapping[int, int]) -> None:
        self.seen.append(("settings", dict(settings)))

    def settings_acknowledged(self) -> None:
        pass

    def ping_received(self, data: bytes) -> None:
        self.seen.append(("ping", data))

    def ping_acknowledged(self, data: bytes) -> None:
        self.seen.append(("pong", data))

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        self.seen.append(("goaway", last_stream_id, code))

    def connection_ended(self, code: int) -> None:
        self.seen.append(("ended", code))

    def take(self, *kinds: str) -> list[tuple[Any, ...]]:
        """What was seen of these kinds since the last time."""
        seen, self.seen = self.seen, []
        return [one for one in seen if one[0] in kinds]


class Pair:
    """An engine and a peer, connected in memory."""

    def __init__(self, *, is_server: bool, **options: Any) -> None:
        self.events = Recorder()
        settings = {MAX_CONCURRENT_STREAMS: 10, INITIAL_WINDOW_SIZE: 65_535}
        self.engine = H2Engine(self.events, is_server=is_server, settings=settings, **options)
        config = h2.config.H2Configuration(client_side=is_server, header_encoding="utf-8")
        self.peer = h2.connection.H2Connection(config)
        self.peer.initiate_connection()
        self.pump()
        self.events.seen.clear()

    def pump(self) -> list[Any]:
        """Pass bytes both ways until there are none; returns the peer's events."""
        events: list[Any] = []
        while True:
            ours, theirs = self.engine.data_to_send(), self.peer.data_to_send()
            self.engine.report()
            if not ours and not theirs:
                return events
            if theirs:
                self.engine.receive(theirs)
            if ours:
                events += self.peer.receive_data(ours)


def test_a_request_and_its_response_with_trailers_both_ways() -> None:
    pair = Pair(is_server=True)
    pair.peer.send_headers(1, [*GET[:1], *GET[1:]])
    pair.peer.send_data(1, b"body")
    pair.peer.send_headers(1, [("checksum", "x")], end_stream=True)
    pair.pump()
    head, data, trailers = pair.events.take("head", "data", "trailers")
    assert head[3] is False
    assert (b":path", b"/") in head[2]
    assert data == ("data", 1, b"body", False)
    assert trailers == ("trailers", 1, ((b"checksum", b"x"),))
    pair.engine.inform(1, ((b":status", b"103"), (b"link", b"</x>")))
    pair.engine.respond(1, OK, ends=False)
    pair.engine.send(1, b"response")
    pair.engine.send_trailers(1, ((b"grpc-status", b"0"),))
    names = [type(event).__name__ for event in pair.pump()]
    assert names[-5:] == [
        "InformationalResponseReceived", "ResponseReceived", "DataReceived", "TrailersReceived",
        "StreamEnded",
    ]  # fmt: skip
    assert pair.events.take("closed") == [("closed", 1, 0)]


def test_a_client_receives_a_response() -> None:
    pair = Pair(is_server=False)
    fields = tuple((name.encode(), value.encode()) for name, value in GET)
    assert pair.engine.can_open
    stream = pair.engine.open(fields, ends=True)
    pair.pump()
    pair.peer.send_headers(stream, [(":status", "103"), ("link", "</x>")])
    pair.peer.send_headers(stream, [(":status", "200")])
    pair.peer.send_data(stream, b"x", end_stream=True)
    pair.pump()
    seen = pair.events.take("informational", "head", "data", "closed")
    assert [one[0] for one in seen] == ["informational", "head", "data", "closed"]


def test_windows_open_only_as_data_is_acknowledged() -> None:
    pair = Pair(is_server=True)
    pair.peer.send_headers(1, GET)
    pair.pump()
    for _ in range(3):
        pair.peer.send_data(1, b"x" * 16_384)
    pair.pump()
    assert pair.peer.local_flow_control_window(1) == 65_535 - 3 * 16_384
    pair.engine.acknowledge(1, 3 * 16_384)
    pair.pump()
    assert pair.peer.local_flow_control_window(1) == 65_535


def test_what_waits_for_the_peers_window_is_known() -> None:
    pair = Pair(is_server=True)
    pair.peer.send_headers(1, GET, end_stream=True)
    pair.pump()
    pair.engine.respond(1, OK, ends=False)
    pair.engine.send(1, b"x" * 100_000, ends=True)
    pair.pump()
    assert pair.engine.queued(1) == 100_000 - 65_535
    pair.peer.increment_flow_control_window(50_000)
    pair.peer.increment_flow_control_window(50_000, 1)
    pair.pump()
    assert pair.engine.queued(1) == 0
    assert pair.events.take("window") == [("window", 0, 50_000), ("window", 1, 50_000)]


def test_a_reset_is_reported_before_the_end_of_its_stream() -> None:
    pair = Pair(is_server=True)
    pair.peer.send_headers(1, GET)
    pair.peer.reset_stream(1, CANCEL)
    pair.pump()
    assert pair.events.take("reset", "closed") == [("reset", 1, CANCEL), ("closed", 1, CANCEL)]
    # What comes too late does nothing.
    pair.engine.respond(1, OK, ends=True)
    pair.engine.send(1, b"x")
    pair.engine.send_trailers(1, ())
    pair.engine.reset(1, CANCEL)
    assert pair.pump() == []


def test_data_of_a_stream_that_has_ended_is_still_acknowledged() -> None:
    pair = Pair(is_server=True)
    pair.peer.send_headers(1, GET)
    for _ in range(3):
        pair.peer.send_data(1, b"x" * 16_384)
    pair.peer.reset_stream(1, CANCEL)
    pair.pump()
    pair.engine.acknowledge(1, 3 * 16_384)
    pair.pump()
    assert pair.peer.outbound_flow_control_window == 65_535


def test_shutdown_takes_two_steps_and_lets_streams_end() -> None:
    pair = Pair(is_server=True)
    pair.peer.send_headers(1, GET, end_stream=True)
    pair.pump()
    pair.engine.announce_shutdown()
    first = pair.pump()
    assert [event.last_stream_id for event in first] == [2**31 - 1]
    pair.engine.shut_down()
    second = pair.pump()
    assert [event.last_stream_id for event in second] == [1]
    assert pair.events.take("ended") == []
    pair.engine.respond(1, OK, ends=True)
    last = pair.engine.data_to_send()
    pair.engine.report()
    assert last
    assert pair.events.take("ended") == [("ended", 0)]


def test_pings_are_acknowledged_and_settings_reported() -> None:
    pair = Pair(is_server=True)
    pair.peer.ping(b"12345678")
    pair.peer.update_settings({4: 1000})
    names = [type(event).__name__ for event in pair.pump()]
    assert "PingAckReceived" in names
    pair.engine.ping(b"abcdefgh")
    pair.pump()
    assert pair.events.take("ping", "pong", "settings") == [
        ("ping", b"12345678"), ("settings", {4: 1000}), ("pong", b"abcdefgh"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        pytest.param(
            lambda: (
                HeadersFrame(1, flags=set(), data=b"").serialize()
                + ContinuationFrame(1, data=b"").serialize() * 20
            ),
            ENHANCE_YOUR_CALM,
            id="continuations",
        ),
        pytest.param(
            lambda: HeadersFrame(
                1,
                flags={"END_HEADERS"},
                data=b"\x40\x01a\x7f\xc8\x1e" + b"a" * 4000 + b"\xbe" * 900,
            ).serialize(),
            ENHANCE_YOUR_CALM,
            id="hpack bomb",
        ),
    ],
)
def test_a_flood_is_an_error_with_the_code_for_its_goaway(attack: Any, code: int) -> None:
    engine = H2Engine(Recorder(), is_server=True, settings={})
    engine.receive(PREFACE + b"\0\0\0\x04\0\0\0\0\0")
    with pytest.raises(H2Error) as caught:
        engine.receive(attack())
    assert caught.value.code == code


def test_a_goaway_frame_is_one() -> None:
    peer = h2.connection.H2Connection()
    peer.initiate_connection()
    peer.receive_data(b"\0\0\0\x04\0\0\0\0\0")
    event = peer.receive_data(goaway(5, ENHANCE_YOUR_CALM))[0]
    assert isinstance(event, h2.events.ConnectionTerminated)
    assert (event.last_stream_id, event.error_code) == (5, ENHANCE_YOUR_CALM)
