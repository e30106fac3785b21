"""One connection to an upstream target: HTTP/2 on the wire, many exchanges at a time.

It knows streams, windows and deadlines, and nothing of clients, routes or tokens. What it reads it
hands to the exchanges by plain calls; what they write in one turn of the loop leaves in one write.

  Connection:   OPEN ── GOAWAY, drain, a silent peer ──► DRAINING ── no stream is left ──► CLOSED
                  └──────────── lost, broken, idle for `timeouts.keepalive` ──────────────► CLOSED

  Stream:  open      send_request, flush          head              end of both sides
    NEW ──────► KEPT ─────────────────► WAITING ───────► RESPONDING ─────────────────► CLOSED
     │ cancel    │ cancel                │ cancel, deadline: RST_STREAM │                 ▲
     └───────────┴───────────────────────┴───────────────► ENDING ──────┴─────────────────┘

  - A stream counts from `open` to CLOSED, which the engine reports: also one that was cancelled,
    until the upstream can have noticed. Its `_sink` is None as soon as the response is over.
  - Windows are given back when the client has taken the bytes. That of the connection is as large
    as those of all streams together, so that one that stalls holds up no other.
  - The engine does not report that it was drained: after every write, the streams that have to
    wait are looked at.
  - A request that was not processed (REFUSED_STREAM, or above the last stream of GOAWAY) fails with
    `UnprocessedError`, and the little that was sent of its body.

RFC 9113; section 8.7 (reliability).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from gateway.http.errors import UpstreamError
from gateway.http.fields import Trailers, passing_trailers
from gateway.http.h2 import (
    CANCEL,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Fields,
    H2Error,
)
from gateway.http.h2_budget import (
    CONTROL_FRAMES,
    CONTROL_REFILL_S,
    PER_REQUEST,
    Budget,
    earned_by,
)
from gateway.http.h2_liveness import PING, PING_AFTER_S, Liveness
from gateway.http.response_head import ResponseHead, read_response_fields
from gateway.http.tls_transport import hold_in_socket
from gateway.upstream.h2_fields import render_request_fields
from gateway.upstream.h2_intake import MultiplexedIntake
from gateway.upstream.h2_limits import MAX_QUEUED_BYTES, MAX_STREAMS, make_engine
from gateway.upstream.h2_stream import MultiplexedStream, StreamCarrier, broken_protocol
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import ResponseSink, UpstreamRequestHead

_log = logging.getLogger(__name__)

_ENDED = frozenset({NO_ERROR, CANCEL})
"""What a stream is closed with that ended, or that we broke off."""


class MultiplexedConnection(StreamCarrier):
    """A shared connection, and its streams by their ids (`H2Events`)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeouts: UpstreamTimeouts,
        *,
        scheme: bytes,
        on_lost: Callable[[MultiplexedConnection], None],
        on_changed: Callable[[MultiplexedConnection], None],
    ) -> None:
        """`on_changed` is called when a stream has ended, or the connection takes no more."""
        super().__init__(timeouts)
        self._loop = loop
        self._scheme = scheme
        self._on_lost = on_lost
        self._on_changed = on_changed
        self.transport: asyncio.Transport | None = None
        self.is_draining = False
        """Whether it takes no more streams."""
        self.stream_count = 0
        """Streams that count against the peer's limit."""
        self._streams: dict[int, MultiplexedStream] = {}
        self._touched: list[MultiplexedStream] = []
        """Streams that received something since the last flush."""
        self._holding: list[MultiplexedStream] = []
        """Streams that hold a piece of their body back until the next write."""
        self._waiting: set[MultiplexedStream] = set()
        """Streams whose sender waits."""
        self._peer_limit = MAX_STREAMS
        self._has_settings = False
        self._has_goaway = False
        self._is_flush_due = False
        self._liveness = Liveness(loop.time(), timeouts.connect_s or PING_AFTER_S)
        self._control = Budget(CONTROL_FRAMES, CONTROL_REFILL_S, loop.time())
        # Responses mostly begin with the same fields.
        self._known_head: tuple[Fields, ResponseHead] | None = None
        self._known_trailers: tuple[Fields, Trailers] = (), ()
        self._due = 0.0
        """When an idle connection closes, on the loop's clock; 0 while it is not idle."""
        self._timer: asyncio.TimerHandle | None = None
        self._engine = make_engine(self)
        self._intake = MultiplexedIntake(loop, self._engine, self.receive)

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "draining" if self.is_draining else "open"
        return f"<MultiplexedConnection {state}, {self.stream_count} streams>"

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written to it."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def has_room(self) -> bool:
        """Whether it takes another stream now."""
        return (
            self.stream_count < self._peer_limit
            and not self.is_draining
            and self.is_open
            and self._engine.can_open
        )

    @property
    def is_held_off(self) -> bool:
        """Whether the peer allows no stream for now; it says so when it does again."""
        return self._peer_limit == 0 and not self.is_draining and self.is_open

    # The pool calls these.

    def open(self, sink: ResponseSink) -> MultiplexedStream:
        """Open a stream, whose response goes to `sink`. There must be room."""
        self._due = 0.0
        self.stream_count += 1
        self.opened_count += 1
        return MultiplexedStream(self, sink)

    def drain(self) -> None:
        """Take no more streams, and close when those that are open have ended."""
        self.is_draining = True
        self._settle()

    def close(self) -> None:
        """Say goodbye and close. For a connection without streams."""
        self.drain()

    def abort(self) -> None:
        """Close now, whatever is in flight."""
        self.is_draining = True
        self._intake.stop()
        if self.transport is not None:
            self.transport.abort()

    # The streams call these.

    def submit(self, stream: MultiplexedStream, head: UpstreamRequestHead, *, ends: bool) -> int:
        if not self.is_open:
            return 0
        try:
            stream_id = self._engine.open(
                render_request_fields(head, scheme=self._scheme), ends=ends
            )
        except H2Error:
            return 0
        self._streams[stream_id] = stream
        self._control.earn(PER_REQUEST)
        self._intake.ignored.earn()
        self.arm(self._liveness.due)
        self.schedule_flush()
        return stream_id

    def send(self, stream_id: int, piece: bytes, *, ends: bool) -> bool:
        self._engine.send(stream_id, piece, ends=ends)
        self._control.earn(earned_by(len(piece)))
        self.schedule_flush()
        return self.is_write_paused or self._engine.queued(stream_id) >= MAX_QUEUED_BYTES

    def hold(self, stream: MultiplexedStream) -> None:
        self._holding.append(stream)
        self.schedule_flush()

    def send_trailers(self, stream_id: int, trailers: Trailers) -> None:
        self._engine.send_trailers(stream_id, trailers)
        self.schedule_flush()

    def wait(self, stream: MultiplexedStream) -> None:
        self._waiting.add(stream)

    def acknowledge(self, stream_id: int, size: int) -> None:
        self._engine.acknowledge(stream_id, size)
        self.schedule_flush()

    def reset(self, stream_id: int, code: int) -> None:
        self._engine.reset(stream_id, code)
        self.schedule_flush()

    def forget(self) -> None:
        self.stream_count -= 1
        self._changed()

    def defer(self, call: Callable[[], None]) -> None:
        self._loop.call_soon(call)

    def now(self) -> float:
        return self._loop.time()

    def arm(self, at: float) -> None:
        timer = self._timer
        if self.transport is None or (timer is not None and at >= timer.when()):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._loop.call_at(at, self._check_deadlines)

    def suspect(self, since: float) -> None:
        if self._liveness.received_at <= since:
            self.is_draining = True

    def schedule_flush(self) -> None:
        """Write what is there at the end of this turn of the loop."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    # The wire (`Negotiation`).

    def attach(self, transport: asyncio.Transport) -> None:
        """Begin: this is the connection."""
        self.transport = self._intake.transport = transport
        if self._scheme == b"https":
            hold_in_socket(transport)
        self._flush()

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer; without any, more of those that came before."""
        self._liveness.received_at = self._loop.time()
        try:
            self._intake.give(data)
            touched, self._touched = self._touched, []
            for stream in touched:
                stream.is_touched = False
                stream.flush_received()
        except Exception as error:
            self._failed(error)
        if self.transport is None and not self._intake.is_waiting:
            self._fail_streams()
        else:
            self.schedule_flush()

    def pause_writing(self) -> None:
        """The transport takes no more."""
        self.is_write_paused = True
        for stream in self._streams.values():
            stream.is_write_paused = True

    def resume_writing(self) -> None:
        """The transport takes bytes again."""
        self.is_write_paused = False
        self._waiting.update(self._streams.values())
        self._flush()

    def lost(self) -> None:
        """The connection is closed. Its streams are lost when all that was read is with them."""
        self.transport = self._intake.transport = None
        self.is_draining = True
        if not self._streams:
            self._intake.stop()
        if not self._intake.is_waiting:
            self._fail_streams()

    def _fail_streams(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        streams = list(self._streams.values())
        self._streams.clear()
        self._waiting.clear()
        self._touched.clear()
        self._holding.clear()
        self.stream_count -= len(streams)
        self._intake.close()
        self._engine.close()
        self._on_lost(self)
        for stream in streams:
            stream.lost()

    # The engine reports these (`H2Events`).

    def head_received(self, stream_id: int, fields: Fields, ends: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._touch(stream)
            known = self._known_head
            try:
                if known is None or known[0] != fields:
                    known = self._known_head = fields, read_response_fields(fields)
            except UpstreamError as error:
                stream.fail(error, PROTOCOL_ERROR)
                return
            stream.receive_head(known[1], ends=ends)

    def informational_received(self, stream_id: int, fields: Fields) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            try:
                stream.receive_interim(read_response_fields(fields))
            except UpstreamError as error:
                stream.fail(error, PROTOCOL_ERROR)

    def body_received(self, stream_id: int, data: bytes, ends: bool) -> None:
        self._intake.ignored.data_bytes += len(data)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._engine.acknowledge(stream_id, len(data))
            return
        self._touch(stream)
        if data:
            self._control.earn(earned_by(len(data)))
        else:
            self._spend_control()
        stream.receive_body(data, ends=ends)

    def trailers_received(self, stream_id: int, fields: Fields) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._touch(stream)
            known = self._known_trailers
            if known[0] != fields:
                known = self._known_trailers = fields, passing_trailers(tuple(fields))
            stream.receive_end(known[1])

    def _touch(self, stream: MultiplexedStream) -> None:
        if not stream.is_touched:
            stream.is_touched = True
            self._touched.append(stream)

    def stream_reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            self._spend_control()
        else:
            stream.is_reset = True

    def stream_closed(self, stream_id: int, code: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._waiting.discard(stream)
            self.stream_count -= 1
            # What the engine ends itself, for the peer broke the protocol, the peer did not refuse.
            is_refused = code == REFUSED_STREAM and (stream.is_reset or self._has_goaway)
            if is_refused or stream.is_reset or code in _ENDED:
                stream.closed(is_refused=is_refused)
            else:
                stream.fail(broken_protocol(is_http2=self._has_settings), 0)
            self._changed()

    def window_updated(self, stream_id: int, increment: int) -> None:
        self._spend_control()  # the next write sends more

    def settings_received(self, settings: Mapping[int, int]) -> None:
        self._spend_control()
        self._has_settings = True
        limit = settings.get(MAX_CONCURRENT_STREAMS)
        if limit is not None:
            self._peer_limit = min(limit, MAX_STREAMS)
            self._changed()

    def settings_acknowledged(self) -> None:
        pass

    def ping_received(self, data: bytes) -> None:
        self._spend_control()

    def ping_acknowledged(self, data: bytes) -> None:
        self._spend_control()

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        self._spend_control()
        if code != NO_ERROR and not self._has_goaway:
            _log.warning("an upstream ended a connection with error %d of HTTP/2", code)
        self.is_draining = self._has_goaway = True
        self._changed()

    def connection_ended(self, code: int) -> None:
        self.is_draining = True
        if self._streams or not self._has_settings:
            self._break(f"error {code} of HTTP/2")

    # What follows from it.

    def _flush(self) -> None:
        """Write what is there, and let those continue who waited for it."""
        try:
            self._write()
        except Exception as error:
            self._failed(error)

    def _write(self) -> None:
        transport = self.transport
        if transport is not None and self._holding and not self.is_write_paused:
            holding, self._holding = self._holding, []
            for stream in holding:
                stream.send_held()
        self._is_flush_due = False
        if transport is None or self.is_write_paused:
            return
        data = self._engine.data_to_send()
        if data and not transport.is_closing():
            transport.write(data)
        self._engine.report()
        if self._waiting:
            self._resume_senders()
        self._settle()

    def _resume_senders(self) -> None:
        for stream in tuple(self._waiting):
            if self.is_write_paused:
                return
            if self._engine.queued(stream.stream_id) < MAX_QUEUED_BYTES // 2:
                self._waiting.discard(stream)
                stream.resume_sender()

    def _changed(self) -> None:
        self._on_changed(self)

    def _settle(self) -> None:
        """Close a connection that is no longer needed, or begin to wait for its next stream."""
        if self.stream_count or self.transport is None:
            return
        if self.is_draining:
            if not self.transport.is_closing():
                self._engine.shut_down()
                if data := self._engine.data_to_send():
                    self.transport.write(data)
                self.transport.close()
        elif not self._due and self.timeouts.keepalive_s:
            self._due = self._loop.time() + self.timeouts.keepalive_s
            self.arm(self._due)

    def _check_deadlines(self) -> None:
        self._timer = None
        now = self._loop.time()
        # `now` may be a little before the time that was set.
        soon = now + 0.001
        if self._due and self._due <= soon:
            self.close()
            return
        next_at = self._due
        if self._streams:
            next_at = self._look_for_peer(now)
        for stream in tuple(self._streams.values()):
            due = stream.due
            if due and due <= soon:
                stream.expire()
            elif due and (not next_at or due < next_at):
                next_at = due
        if next_at and self.transport is not None:
            self.arm(next_at)

    def _look_for_peer(self, now: float) -> float:
        """Find out whether a peer that is quiet is still there; returns when to look again."""
        if self._liveness.is_lost(now):
            _log.warning("a connection to an upstream is silent: a PING was not acknowledged")
            self.abort()
        elif self._liveness.must_ask(now):
            self._engine.ping(PING)
            self.schedule_flush()
        return max(self._liveness.due, now + 0.001)

    def _spend_control(self) -> None:
        """Pay for a frame that costs the upstream nothing; a flood of them ends the connection."""
        if not self._control.spend(self._loop.time()) and self.is_open:
            self._break("a flood of control frames")

    def _failed(self, error: Exception) -> None:
        """End a connection some events of which are lost: no stream may take those that come next
        for the rest of its own."""
        if isinstance(error, H2Error):
            self._break(str(error))
        else:
            _log.error("a connection to an upstream failed", exc_info=error)
            self.abort()

    def _break(self, error: str) -> None:
        """End a connection whose peer breaks the protocol."""
        _log.warning("a connection to an upstream is broken: %s", error)
        self.is_draining = True
        self._intake.stop()
        if not self._has_settings:
            self.unfit = broken_protocol(is_http2=self._has_settings)
        for stream in tuple(self._streams.values()):
            stream.fail(broken_protocol(is_http2=self._has_settings), 0)
        if self.transport is not None:
            self.transport.abort()  # it may never read what is still to be written
