"""One stream of an HTTP/2 connection: a request of a client, and its response.

    head_received ─► OPEN ── respond / end ──► RESPONDED ── release ──► RELEASED ─► closed
                      │                                        │  the client takes the rest; where
                      │ reset, stream_closed, deadline         │  its body is not complete, then
                      └──────► gone: `client_gone` ── release ─┘  RST_STREAM(NO_ERROR)

  - The body goes to `_sink` once one is there; before, and while it is paused, it is kept, at most
    as much as the windows allow: they open again only as the body is passed on.
  - `_head` is a response whose head was not sent yet; another one may take its place.
  - The engine reports no drained queue: `look` is called after each write of the connection.
  - Two deadlines: the body of the request, and the response that the client does not take. Each
    runs only while the client is expected to act.

RFC 9113 sections 5.1 (states), 5.2 (flow control), 8.1 (framing of messages).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.downstream.h2_head import malformed, response_fields
from gateway.downstream.h2_intake import H2Intake
from gateway.downstream.request import Request
from gateway.downstream.stream import BodySink, ClientLimits, ClientStream, StreamOwner
from gateway.downstream.turns import Turns
from gateway.http.deadline import Deadline, do_nothing
from gateway.http.errors import RequestTimeoutError
from gateway.http.fields import Trailers
from gateway.http.h2 import CANCEL, INTERNAL_ERROR, NO_ERROR, Fields
from gateway.http.h2_budget import Budget, earned_by
from gateway.http.h2_engine import H2Engine
from gateway.http.response_head import ResponseHead
from gateway.metrics.counts import H2Counts

HIGH_WATER_BYTES = 64 * 1024
"""Queued for a client that does not take them: no more is read from the upstream."""
LOW_WATER_BYTES = 16 * 1024
_CONTINUE = ((b":status", b"100"),)
_SLACK_S = 0.001
"""A timer may fire a little before its time."""


class H2Channel:
    """State that the streams of one connection share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: ClientLimits,
        counts: H2Counts,
        turns: Turns,
        *,
        control: Budget,
        window: int,
        flush: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.limits = limits
        self.counts = counts
        self.turns = turns
        self.control = control
        self.engine: H2Engine | None = None
        self.intake: H2Intake | None = None
        self.writing: set[H2Stream] = set()
        """Those that have something queued, or just had."""
        self.held = 0
        """Bytes of bodies whose part of the windows was not given back."""
        self.streams: dict[int, H2Stream] = {}
        """By their ids, until both the engine and the pipeline have done with them."""
        self._window = window
        self._flush = flush
        self._is_flush_due = False
        self._body_timer: asyncio.TimerHandle | None = None
        self._body_timer_at = 0.0
        # Responses mostly begin with the same fields.
        self._known_head: ResponseHead | None = None
        self._known_fields: Fields = ()

    @property
    def is_starved(self) -> bool:
        """Whether what streams hold may keep others from sending: not a client's fault."""
        return self.held * 2 >= self._window

    @property
    def is_behind(self) -> bool:
        """Whether what the client has sent waits for its turn: not its fault either."""
        return self.intake is not None and self.intake.is_waiting

    def schedule(self) -> None:
        """Have what is queued written at the end of this turn of the loop."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def watch(self, stream: H2Stream) -> None:
        """Have what a stream queued written, and look at it then."""
        if self.engine is not None:
            self.writing.add(stream)
            self.schedule()

    def flushed(self) -> None:
        """Note that all that was queued is written."""
        self._is_flush_due = False

    def response_fields(self, head: ResponseHead, request_id: bytes) -> Fields:
        """Return the fields of a response; those of a head that comes again are kept."""
        if head is not self._known_head:
            self._known_head, self._known_fields = head, response_fields(head, b"")
        return (*self._known_fields, (b"x-request-id", request_id))

    # One timer for all bodies: most are complete before one of their own would be set.

    def watch_body(self, at: float) -> None:
        """Look at the deadlines of bodies at `at`, at the latest."""
        if self._body_timer is None:
            self._arm(at)
        elif at < self._body_timer_at:
            self._body_timer.cancel()
            self._arm(at)

    def _arm(self, at: float) -> None:
        self._body_timer_at = at
        self._body_timer = self.loop.call_at(at, self._look_at_bodies)

    def _look_at_bodies(self) -> None:
        self._body_timer = None
        next_at = 0.0
        soon = self.loop.time() + _SLACK_S
        for stream in tuple(self.streams.values()):
            due = stream.body_expires_at
            if due and due <= soon:
                stream.expire_body()
            elif due and (not next_at or due < next_at):
                next_at = due
        if next_at:
            self.watch_body(next_at)

    def close(self) -> None:
        """Let go of the timer, the connection, and its streams: they are freed at once, and not by
        the garbage collector."""
        self._flush = do_nothing
        self.engine = self.intake = None
        self.streams.clear()
        self.writing.clear()
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def give_back(self, stream_id: int, size: int) -> None:
        """Open the windows by what was passed on."""
        self.held -= size
        if self.engine is not None:
            self.engine.acknowledge(stream_id, size)
            self.schedule()


class H2Stream(ClientStream):
    """One request."""

    __slots__ = (
        "_body_due", "_channel", "_engine", "_head", "_is_body_complete", "_is_paused",
        "_is_reset", "_is_responded", "_is_stalled", "_kept", "_owed", "_piece", "_sink",
        "_trailers", "_write_deadline", "body_expires_at", "id", "is_closed", "is_released",
        "is_reset_by_client", "is_write_paused", "request",
    )  # fmt: skip

    def __init__(
        self, channel: H2Channel, engine: H2Engine, stream_id: int, request: Request, *, ends: bool
    ) -> None:
        self._channel = channel
        self._engine = engine
        self.id = stream_id
        self.request = request
        self.owner: StreamOwner | None = None
        self.is_closed = False
        """Whether the engine knows it no more."""
        self.is_released = False
        """Whether the pipeline does not."""
        self.is_reset_by_client = False
        self.is_write_paused = False
        # The request's body.
        self._sink: BodySink | None = None
        self._kept: bytearray | None = None
        self._trailers: Trailers = ()
        self._is_body_complete = ends
        self._is_paused = False
        self._owed = 0
        """What the sink took, and is not given back to the windows while it is paused."""
        self._body_due = 0.0
        """As in `H1Connection`."""
        self.body_expires_at = 0.0
        """When its body is too late, on the loop's clock; 0 while it is not waited for."""
        # The response.
        self._head: ResponseHead | None = None
        self._piece = b""
        self._is_responded = False
        """Whether all of it is with the engine."""
        self._is_reset = self._is_stalled = False
        self._write_deadline: Deadline | None = None

    def __repr__(self) -> str:
        return f"<H2Stream {self.id}>"

    # The request's body (`ClientStream`).

    def read_body(self, sink: BodySink) -> None:
        if self.is_closed or self.is_released:
            return
        waits = not self._kept and not self._is_body_complete
        if waits and self.request.head.expects_continue:
            self._engine.inform(self.id, _CONTINUE)
            self._channel.schedule()
        self._sink = sink
        self._body_due = 0.0
        self._is_paused = False
        self._deliver_kept()

    def pause_body(self) -> None:
        if not self._is_paused and self._sink is not None:
            self._is_paused = True
            self.body_expires_at = 0.0  # it is not the client who is late
            if self._body_due:
                self._body_due -= self._channel.loop.time()

    def resume_body(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if self._body_due:
                self._body_due += self._channel.loop.time()
            if self._owed:
                owed, self._owed = self._owed, 0
                self._channel.give_back(self.id, owed)
            self._deliver_kept()

    def receive(self, data: bytes, *, ends: bool) -> None:
        """Take a piece of the body from the client."""
        self._is_body_complete = ends
        if self.is_released:
            self._channel.give_back(self.id, len(data))
        elif self._sink is None or self._is_paused:
            if self._kept is None:
                self._kept = bytearray()
            self._kept += data
        else:
            self._deliver(data)

    def receive_trailers(self, trailers: Trailers) -> None:
        """Take the end of the body, with trailers."""
        self._trailers = trailers
        self.receive(b"", ends=True)

    def _deliver_kept(self) -> None:
        kept, self._kept = self._kept, None
        self._deliver(b"" if kept is None else bytes(kept))

    def _deliver(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            return
        if data:
            sink.take(data)
            if self._sink is not sink or not self._is_paused:
                self._channel.give_back(self.id, len(data))
            else:
                self._owed += len(data)
        if self._sink is not sink:
            return  # it gave up
        if self._is_body_complete:
            self._sink = None
            self.body_expires_at = 0.0
            sink.end_of_body(self._trailers)
        elif not self._is_paused:
            self._await_body(len(data))

    def _await_body(self, received: int) -> None:
        """Expect more of the body, `received` bytes having come."""
        now = self._channel.loop.time()
        due = self._channel.limits.body_due(now, self._body_due, received)
        self._body_due = self.body_expires_at = due
        self._channel.watch_body(due)

    def expire_body(self) -> None:
        """Break off a request whose body is late, unless that is not its client's fault."""
        self.body_expires_at = 0.0
        sink = self._sink
        if sink is None:
            return
        if self._channel.is_starved or self._channel.is_behind:
            self._body_due = 0.0
            self._await_body(0)
            return
        self._sink = None
        sink.body_failed(RequestTimeoutError("client_body_timeout", "The body is too slow."))

    # The response (`ClientStream`).

    def inform(self, head: ResponseHead) -> None:
        if not self.is_closed:
            self._engine.inform(self.id, response_fields(head, b""))
            self._channel.schedule()

    def respond(self, head: ResponseHead, body: bytes | None, *, closes: bool = False) -> None:
        """See `ClientStream`. `closes` is nothing here: other streams are not affected."""
        if self.is_closed or self._is_responded:
            return
        self._piece = b""
        if body is None:
            self._head = head
            return
        self._head = None
        self._is_responded = True
        has_body = bool(body) and head.has_body(is_response_to_head=self.request.method == "HEAD")
        self._send_head(head, ends=not has_body)
        if has_body:
            self._engine.send(self.id, body, ends=True)
        self._sent(len(body))

    def send(self, piece: bytes) -> None:
        self._piece = self._piece + piece if self._piece else piece

    def flush(self) -> None:
        if self.is_closed or self._is_responded:
            return
        head, piece = self._head, self._piece
        if head is not None:
            self._head = None
            ends = not head.has_body(is_response_to_head=self.request.method == "HEAD")
            self._is_responded = ends
            self._send_head(head, ends=ends)
        if piece:
            self._piece = b""
            if not self._is_responded:
                self._engine.send(self.id, piece)
        self._sent(len(piece))

    def end(self, trailers: Trailers = ()) -> None:
        if self.is_closed:
            return
        size = 0
        if self._head is not None and not self._piece and not trailers:
            head, self._head = self._head, None
            self._is_responded = True
            self._send_head(head, ends=True)
        elif trailers:
            self.flush()
            if not self._is_responded:
                self._engine.send_trailers(self.id, trailers)
        else:
            piece, self._piece = self._piece, b""
            size = len(piece)
            self.flush()
            if not self._is_responded:
                self._engine.send(self.id, piece, ends=True)
        self._is_responded = True
        self._sent(size)

    def _send_head(self, head: ResponseHead, *, ends: bool) -> None:
        fields = self._channel.response_fields(head, self.request.request_id)
        self._engine.respond(self.id, fields, ends=ends)

    def _sent(self, size: int) -> None:
        channel = self._channel
        channel.control.earn(earned_by(size))
        channel.watch(self)

    def reset(self) -> None:
        self._reset(INTERNAL_ERROR)

    def _reset(self, code: int) -> None:
        if not self.is_closed and not self._is_reset:
            self._is_reset = self._is_responded = True
            self._head = None
            self._channel.counts.resets["gateway"] += 1
            self._engine.reset(self.id, code)
            self._channel.schedule()

    def upgrade(self, head: ResponseHead, sink: BodySink) -> None:
        """Reset: no request of HTTP/2 asks for it (RFC 8441 is not offered)."""
        self.reset()

    def release(self) -> None:
        if self.is_released:
            return
        self.is_released = True
        self.owner = self._sink = None
        self._stop_body()
        if self._write_deadline is not None:
            self._write_deadline.clear()
        if not self._is_responded:
            self._reset(CANCEL)
        self._channel.watch(self)

    def _stop_body(self) -> None:
        self.body_expires_at = 0.0
        held = self._owed if self._kept is None else len(self._kept) + self._owed
        if held:
            self._kept = None
            self._owed = 0
            self._channel.give_back(self.id, held)

    # The connection calls these.

    @property
    def is_reset(self) -> bool:
        """Whether we have broken it off ourselves."""
        return self._is_reset

    def look(self, *, is_sent: bool) -> bool:
        """Look at what is queued, after a write; returns whether to look again. With `is_sent`,
        all that the windows allow was written."""
        if self.is_closed:
            return False
        queued = self._engine.queued(self.id)
        if self.is_released:
            if queued or not is_sent:
                self._await_write()
                return True
            if not self._is_body_complete:
                # What the client still sends is not waited for (RFC 9113 section 8.1).
                self._is_body_complete = True
                if not self._is_reset:
                    self._reset(NO_ERROR)
            return False
        if self.is_write_paused:
            if queued <= LOW_WATER_BYTES:
                self.is_write_paused = self._is_stalled = False
                if self._write_deadline is not None:
                    self._write_deadline.clear()
                if self.owner is not None:
                    self.owner.resume()
        elif queued >= HIGH_WATER_BYTES:
            self.is_write_paused = True
            self._await_write()
            if self.owner is not None:
                self.owner.pause()
        return queued > 0

    def _await_write(self) -> None:
        if self._write_deadline is None:
            self._write_deadline = Deadline(self._channel.loop, self._stall)
        if not self._write_deadline.is_set:
            self._write_deadline.set(self._channel.limits.body_timeout_s)

    def _stall(self) -> None:
        """Break it off when there is time: those that have begun together end together."""
        self._is_stalled = True
        self._channel.turns.wait(self._break_off)

    def _break_off(self) -> None:
        if self._is_stalled and not self._is_reset and not self.is_closed:
            self._channel.counts.errors["stalled"] += 1
            self._reset(CANCEL)

    def close(self, *, is_malformed: bool = False) -> None:
        """It has ended, or its connection; `is_malformed` where that is for what the client sent
        of its body."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._write_deadline is not None:
            self._write_deadline.close()
        self._stop_body()
        if self.is_released:
            return
        owner, sink = self.owner, self._sink
        self._sink = None
        if sink is not None and is_malformed:
            sink.body_failed(malformed())
        elif owner is not None:
            owner.client_gone()
        elif sink is not None:
            sink.body_failed(RequestTimeoutError("client_body", "The request body broke off."))
