"""One stream of a shared connection to an upstream: a request, its response, and their deadlines.

`gateway.upstream.h2` has the drawing of its states. What it needs of its connection is
`StreamCarrier`; the connection alone knows the engine.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable

from gateway.http.errors import (
    ResponseHeadTimeoutError,
    StreamIdleTimeoutError,
    UpstreamClosedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilentError,
)
from gateway.http.fields import Trailers, passing_trailers
from gateway.http.h2 import CANCEL, NO_ERROR
from gateway.http.response_head import ResponseHead
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import (
    ResponseSink,
    SentBody,
    UnprocessedError,
    UpstreamRequestHead,
    UpstreamStream,
)

_log = logging.getLogger(__name__)

MAX_KEPT_BYTES = 64 * 1024
"""What is kept of a request's body that may have to be sent again."""
MAX_HELD_BYTES = 4096
"""The largest piece of a body that waits for the end of the turn, in case the body ends with it."""
MAX_INTERIM_RESPONSES = 16


class StreamCarrier:
    """Carries streams: the connection, as they know it."""

    def __init__(self, timeouts: UpstreamTimeouts) -> None:
        self.timeouts = timeouts
        self.is_write_paused = False
        self.opened_count = 0
        """Streams that it has opened so far."""
        self.unfit: UpstreamError | None = None
        """Why no connection to the peer would do better."""

    @abstractmethod
    def submit(self, stream: MultiplexedStream, head: UpstreamRequestHead, *, ends: bool) -> int:
        """Send the head of a request; returns the id of its stream, 0 where that is impossible."""

    @abstractmethod
    def send(self, stream_id: int, piece: bytes, *, ends: bool) -> bool:
        """Send a piece of a body; returns whether the sender has to wait now."""

    @abstractmethod
    def hold(self, stream: MultiplexedStream) -> None:
        """Call `send_held` before the next write."""

    @abstractmethod
    def send_trailers(self, stream_id: int, trailers: Trailers) -> None:
        """Finish a body with trailers."""

    @abstractmethod
    def wait(self, stream: MultiplexedStream) -> None:
        """Call `resume_sender` when the stream takes bytes again."""

    @abstractmethod
    def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the peer send that much more."""

    @abstractmethod
    def reset(self, stream_id: int, code: int) -> None:
        """Break a stream off. It counts until that was written."""

    @abstractmethod
    def forget(self) -> None:
        """A stream ended of which nothing was sent."""

    @abstractmethod
    def defer(self, call: Callable[[], None]) -> None:
        """Call back in the next turn of the loop."""

    @abstractmethod
    def now(self) -> float:
        """The loop's clock."""

    @abstractmethod
    def arm(self, at: float) -> None:
        """Look at the deadlines of the streams at `at`, at the latest."""

    @abstractmethod
    def suspect(self, since: float) -> None:
        """A stream had no response. Where nothing at all has come since, the peer may be gone
        without a word, so that no other request should wait for it."""


class MultiplexedStream(UpstreamStream):
    """One request and its response on a shared connection."""

    __slots__ = (
        "_connection", "_has_head", "_held", "_interim_count", "_is_ended", "_is_first",
        "_is_reading_paused", "_is_request_sent", "_is_whole", "_kept", "_may_pause", "_piece",
        "_sent", "_sent_at", "_sink", "due", "is_reset", "is_touched", "stream_id",
    )  # fmt: skip

    def __init__(self, connection: StreamCarrier, sink: ResponseSink) -> None:
        self._connection = connection
        self._sink: ResponseSink | None = sink
        self.stream_id = 0
        """0 as long as nothing was sent."""
        self.due = 0.0
        """The deadline, on the loop's clock: the head of the response, or idle; 0 for none."""
        self.is_write_paused = connection.is_write_paused
        self.is_reset = False
        """Whether the upstream broke it off."""
        self.is_touched = False
        """Whether the connection knows that it has received something."""
        self._is_first = connection.opened_count == 1
        self._kept: UpstreamRequestHead | None = None
        """The head, until some of the body came."""
        self._piece = b""
        """Of the body, until the end of the turn: the end may come with it."""
        self._sent: SentBody | None = SentBody()
        """Of the request's body, until a response begins or it is too large."""
        self._sent_at = 0.0
        self._held = 0
        """Bytes received that are not given back to the peer's windows yet."""
        self._interim_count = 0
        self._is_reading_paused = False
        self._is_request_sent = False
        self._has_head = False
        self._may_pause = False
        """Whether the rest of the response may take as long as it takes."""
        self._is_ended = False
        """Whether it is over for the connection."""

    # The exchange calls these.

    @property
    def is_replayable(self) -> bool:
        """Whether the connection has carried a request before."""
        return not self._is_first

    def send_request(self, head: UpstreamRequestHead, *, ends: bool) -> None:
        if ends:
            self._submit(head, ends=True)
            self._await_head()
        else:
            self._kept = head

    def flush(self) -> None:
        kept = self._kept
        if kept is not None:
            self._kept = None
            self._submit(kept, ends=False)

    def send_body(self, piece: bytes) -> None:
        self.flush()
        sent = self._sent
        if sent is not None:
            sent.add(piece)
            if sent.size > MAX_KEPT_BYTES:
                self._sent = None
        if self.stream_id:
            self.send_held()
            is_paused = self.is_write_paused or self._connection.is_write_paused
            if len(piece) <= MAX_HELD_BYTES and not is_paused:
                self._piece = piece
                self._connection.hold(self)
            else:
                self._send_piece(piece)
        if self.is_write_paused or self._has_head:
            self._touch()

    def end_body(self, trailers: Trailers = ()) -> None:
        trailers = passing_trailers(trailers)
        if self._sent is not None:
            self._sent.end(trailers)
        kept = self._kept
        if kept is not None and not trailers:
            self._kept = None
            self._submit(kept, ends=True)
        else:
            self.flush()
            if not self.stream_id:
                pass
            elif trailers:
                self.send_held()
                self._connection.send_trailers(self.stream_id, trailers)
            else:
                piece, self._piece = self._piece, b""
                self._connection.send(self.stream_id, piece, ends=True)
        self._await_head()

    def pause_reading(self) -> None:
        if not self._is_reading_paused:
            self._is_reading_paused = True
            if self._has_head:
                self.due = 0.0

    def resume_reading(self) -> None:
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._give_back()
            self._touch()

    def allow_pauses(self) -> None:
        self._may_pause = True
        self.due = 0.0

    def release(self) -> None:
        """Break off what is left of a request that was not wanted whole."""
        if not self._is_request_sent and not self._is_ended:
            self._leave(NO_ERROR)

    def cancel(self) -> None:
        self._sink = None
        if not self._is_ended:
            self._leave(CANCEL)

    def upgrade(self, sink: ResponseSink) -> None:
        raise NotImplementedError  # there is no 101 in HTTP/2 (RFC 9113 section 8.6)

    def send_raw(self, data: bytes) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.cancel()

    def _submit(self, head: UpstreamRequestHead, *, ends: bool) -> None:
        if self._is_ended:
            return
        self._sent_at = self._connection.now()
        self.stream_id = self._connection.submit(self, head, ends=ends)
        if not self.stream_id:
            # The connection was lost since the pool gave the stream. Not now: the exchange is
            # about to send the body.
            self._is_ended = True
            self._connection.defer(self._refuse)

    def _refuse(self) -> None:
        self._connection.forget()
        self._fail(self._connection.unfit or self._make_refusal())

    def _send_piece(self, piece: bytes) -> None:
        if self._connection.send(self.stream_id, piece, ends=False):
            self.is_write_paused = True
            self._connection.wait(self)
            self._touch()

    def _leave(self, code: int) -> None:
        self.due = 0.0
        self._piece = b""
        self._give_back()
        self._is_ended = True
        if self.stream_id:
            self._connection.reset(self.stream_id, code)
        else:
            self._connection.forget()

    def _await_head(self) -> None:
        self._is_request_sent = True
        if not self._has_head and self._sink is not None:
            self._sent_at = self._connection.now()
            timeout_s = self._connection.timeouts.response_head_s
            self.due = self._sent_at + timeout_s if timeout_s else 0.0
            if timeout_s:
                self._connection.arm(self.due)

    def _touch(self) -> None:
        """Grant another idle timeout: something moved, in either direction."""
        waits_for_head = self._is_request_sent and not self._has_head
        if self._sink is not None and not waits_for_head and not self._is_reading_paused:
            self._set_due(0.0 if self._may_pause else self._connection.timeouts.idle_s)

    def _set_due(self, timeout_s: float) -> None:
        if timeout_s:
            self.due = self._connection.now() + timeout_s
            self._connection.arm(self.due)
        else:
            self.due = 0.0

    def _give_back(self) -> None:
        if self._held:
            self._connection.acknowledge(self.stream_id, self._held)
            self._held = 0

    # The connection calls these.

    def send_held(self) -> None:
        """Send what was held back of the body."""
        piece = self._piece
        if piece:
            self._piece = b""
            self._send_piece(piece)

    def receive_interim(self, head: ResponseHead) -> None:
        """Receive a 1xx head. Raises `UpstreamProtocolError`."""
        self._interim_count += 1
        if self._interim_count > MAX_INTERIM_RESPONSES:
            raise UpstreamProtocolError("upstream_protocol", "Too many interim responses.")
        if self._sink is not None:
            self._sink.informed(head)

    def receive_head(self, head: ResponseHead, *, ends: bool) -> None:
        """Receive the final head."""
        self._has_head = True
        self._sent = None
        sink = self._sink
        if sink is None:
            return
        if ends:
            self._over()
            sink.whole(head, b"")
        else:
            sink.head(head)  # `flush_received` sets the deadline

    def receive_body(self, data: bytes, *, ends: bool) -> None:
        """Receive a piece of the body."""
        self._held += len(data)
        sink = self._sink
        if sink is not None and data:
            sink.body(data)
        if ends:
            self.receive_end(())

    def receive_end(self, trailers: Trailers) -> None:
        """Receive the end of the response."""
        sink = self._sink
        if sink is not None:
            self._over()
            sink.end(trailers)

    def flush_received(self) -> None:
        """Nothing more came with the last read."""
        sink = self._sink
        if sink is not None:
            if not self._is_reading_paused:
                self._touch()
            sink.flush()
        if self._sink is None or not self._is_reading_paused:
            self._give_back()

    def resume_sender(self) -> None:
        """The connection takes bytes again."""
        self.is_write_paused = False
        if self._sink is not None:
            if self._is_request_sent:
                self._touch()
            elif not self._has_head:
                # It is the client's turn to move: the upstream can't be late.
                self.due = 0.0
            self._sink.writable()

    def closed(self, *, is_refused: bool) -> None:
        """The engine is done with it; `is_refused`: the upstream did not process it."""
        self._is_ended = True
        self._piece = b""
        self._give_back()
        if self._sink is None:
            return
        if is_refused and not self._has_head:
            self._fail(self._make_refusal())
        else:
            self._fail(
                UpstreamClosedError(
                    "upstream_reset", "The upstream broke its response off (RST_STREAM)."
                )
            )

    def lost(self) -> None:
        """The connection is closed."""
        self._is_ended = True
        self._piece = b""
        self._held = 0
        if self._has_head:
            self._fail(
                UpstreamClosedError(
                    "upstream_closed",
                    "The upstream closed the connection before its response was complete.",
                )
            )
        else:
            self._fail(
                UpstreamSilentError("upstream_silent", "The upstream closed without a response.")
            )

    def expire(self) -> None:
        """The deadline has come."""
        if self._has_head or not self._is_request_sent:
            error: UpstreamError = StreamIdleTimeoutError(
                "stream_idle_timeout", "No data was exchanged within the idle timeout."
            )
        else:
            self._connection.suspect(self._sent_at)
            error = ResponseHeadTimeoutError(
                "upstream_response_timeout", "The upstream did not respond in time."
            )
        self.fail(error, CANCEL)

    def fail(self, error: UpstreamError, code: int) -> None:
        """Give the stream up, and report why."""
        if not self._is_ended:
            self._leave(code)
        self._fail(error)

    def _make_refusal(self) -> UnprocessedError:
        return UnprocessedError(
            "upstream_unprocessed", "The upstream refused to process the request.", self._sent
        )

    def _over(self) -> None:
        self._sink = None
        self.due = 0.0

    def _fail(self, error: UpstreamError) -> None:
        sink = self._sink
        self._over()
        if sink is not None:
            try:
                sink.failed(error)
            except Exception:  # the others of the connection are to fail, too
                _log.exception("a stream of an upstream could not report its end")


def broken_protocol(*, is_http2: bool) -> UpstreamProtocolError:
    """Make the error of the streams of a connection that its peer broke; `is_http2` where that has
    begun as HTTP/2."""
    detail = "The upstream's response is not valid HTTP/2."
    if not is_http2:
        detail = "The upstream does not speak HTTP/2."
    return UpstreamProtocolError("upstream_protocol", detail)
