"""One proxied request: its body to the upstream, and the response back to the client.

Both ways are pushed: what one side receives is sent to the other in the same call, without a task
in between, and what arrived together leaves in one write. The client is known only as a
`ClientStream`, the upstream only as an `UpstreamStream`: nothing here renders a byte of HTTP. A
side that can't take more pauses the other.

   start()
     │          an idle connection                 head, whole
     ├─────────────────────────────► SENDING ─────────────────► RESPONDING ── end ──► OVER
     │  none   ┌──────────┐  opened    │  │                         │                  ▲
     └───────► │ DIALLING │ ───────────┘  │ upgraded                │ failed           │
               └──────────┘               └────────► TUNNEL ── one side ends ──────────┤
                 │    ▲                                            │                   │
      attempt_failed │  │ restart: another endpoint, perhaps after   │ nothing sent yet  │
                 ▼    │ a pause                                    ▼                   │
               Attempts.after_failure ◄──────────────────────── attempt_failed             │
                 └── no other try ─────────────────────────────────────────────────────┘

  - DIALLING: `_task`. SENDING and RESPONDING: `_stream`. TUNNEL: `_stream` and `_tunnel`.
  - RESPONDING: `status` is set and `_is_streaming`; `_has_begun` once some of it was sent. Until
    then a failure may still lead to another try, or to a response of the gateway's own.
  - `client_gone`, `body_failed` and the deadlines (`cut`) end every state; OVER calls `done` once.

RFC 9112 section 6 (framing is rebuilt, never copied), RFC 9110 sections 7.6 (what a
proxy forwards), 9.2.2 (idempotent methods).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.downstream.stream import BodySink, ClientStream
from gateway.http.content_coding import Encoder
from gateway.http.errors import (
    ClientClosedError,
    Headers,
    ProblemError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilentError,
)
from gateway.http.fields import Trailers
from gateway.http.grpc import http_status_for, read_status, render_timeout
from gateway.http.response_head import ResponseHead
from gateway.proxy.attempts import Attempts, RetriableExchange
from gateway.proxy.response_filter import ResponseFilter
from gateway.proxy.tunnel import Tunnel
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.pool import unforeseen
from gateway.upstream.retry_policy import IDEMPOTENT, STALE
from gateway.upstream.stream import (
    SentBody,
    UnprocessedError,
    UpstreamRequestHead,
    UpstreamStream,
)
from gateway.upstream.upstream import Upstream

EVENT_STREAM = b"text/event-stream"
Caller = TypeVar("Caller")
"""Whose exchange it is."""


class Exchange(RetriableExchange, Generic[Caller]):
    """A request and its response. `done` is called once, when it is over, with what went
    wrong; what to do about that depends on whether `status` was sent."""

    # How far it is. Not slots: most exchanges set few of these.
    _task: asyncio.Task[None] | None = None
    _is_streaming = False
    """Whether the head of a response was given to the client's stream, and its body comes."""
    _has_begun = False
    """Whether some of that response was sent."""
    _encoder: Encoder | None = None
    """What the response's body goes through."""
    _tunnel: Tunnel | None = None
    _attempts: Attempts | None = None
    """Only where there is more than one try, or might be."""
    _key = ""
    _is_over = False
    is_grpc = False
    """Whether the request calls a method of gRPC; set before `start`."""
    grpc_status = -1
    """What an upstream of gRPC responded; -1 as long as it did not."""
    # What stands between the two sides; set before `start`.
    response_filter: ResponseFilter | None = None
    extra_fields: Headers = ()
    """For the head of the response."""
    body_taps: tuple[Callable[[BodySink], BodySink], ...] = ()
    """What stands between the body of the request and the upstream."""
    whole_body: bytes | None = None
    """The body of the request, where it was read before."""
    may_stream = False
    """Whether the response may be a stream of events, with pauses of any length."""
    on_tunnel: Callable[[Tunnel], None] | None = None
    """Called with the tunnel, where the request becomes one."""
    # What came of it.
    status = 0
    """The status given to the client; 0 as long as none was."""
    bytes_received = 0
    """Body bytes taken from the client."""
    bytes_sent = 0
    """Body bytes given to the client."""

    def __init__(
        self,
        caller: Caller,
        client: ClientStream,
        *,
        upstream: Upstream,
        endpoint: Endpoint,
        head: UpstreamRequestHead,
        done: Callable[[Exchange[Caller], ProblemError | None], None],
        key: str = "",
    ) -> None:
        """`head` is what the upstream gets; `key` is what its endpoint was chosen by."""
        self.caller = caller
        self._client = client
        self._upstream = upstream
        self._endpoint = endpoint
        # Set here: mypyc makes no default of a class whose module it reads after this one.
        self._stream: UpstreamStream | None = None
        self._sent: SentBody | None = None
        """What has to be sent again of the body."""
        self.request_head = head
        self._done = done
        if key:
            self._key = key

    def start(self) -> None:
        """Send the request on an idle connection, or on a new one as soon as there is one."""
        self._client.owner = self
        if self._upstream.is_timed or self.expires_at:
            self._need_attempts().begin()
        self._try()

    def _need_attempts(self) -> Attempts:
        attempts = self._attempts
        if attempts is None:
            attempts = Attempts(self, self._upstream, self._endpoint, self._key)
            self._attempts = attempts
        return attempts

    def _try(self) -> None:
        stream = self._endpoint.pool.try_open(self)
        if stream is None:
            self._open()
        else:
            self._send(stream)

    def _open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._send_when_open())

    async def _send_when_open(self) -> None:
        try:
            stream = await self._endpoint.pool.open(self)
            self._task = None
            self._send(stream)
        except UpstreamError as error:
            self._task = None
            self.attempt_failed(error)
        except Exception as error:  # the request must not wait for ever
            self.leave()
            self.attempt_failed(unforeseen(error))

    # The client's stream calls these (`StreamOwner`, `BodySink`).

    def pause(self) -> None:
        """The client takes no more: neither do we."""
        if self._stream is not None:
            self._stream.pause_reading()

    def resume(self) -> None:
        """The client takes bytes again."""
        if self._stream is not None:
            self._stream.resume_reading()

    def client_gone(self) -> None:
        """The client left: the upstream need not go on with the response."""
        if self._tunnel is not None:
            self._tunnel.client_lost()
        else:
            self.cut(ClientClosedError("client_closed", "The client went away."))

    def take(self, piece: bytes) -> None:
        """A piece of the request's body."""
        self.bytes_received += len(piece)
        stream = self._stream
        if stream is not None:
            stream.send_body(piece)
            if stream.is_write_paused:
                self._client.pause_body()
        elif self._sent is not None:
            self._sent.add(piece)

    def end_of_body(self, trailers: Trailers = ()) -> None:
        """The body of the request is complete."""
        if self._stream is not None:
            self._stream.end_body(trailers)
            if self._attempts is not None:
                self._attempts.request_sent()
        elif self._sent is not None:
            self._sent.end(trailers)

    def body_failed(self, error: ProblemError) -> None:
        """Nothing whole can be sent on, and closing is how the upstream learns of it."""
        self.cut(error)

    # Towards the upstream.

    def _send(self, stream: UpstreamStream) -> None:
        self._stream = stream
        head = self.request_head
        if self.expires_at:
            left_s = self.expires_at - asyncio.get_running_loop().time()
            head = head.with_line(b"grpc-timeout: %b\r\n" % render_timeout(left_s))
        if not head.is_chunked and head.length <= 0:
            stream.send_request(head, ends=True)
            if self._attempts is not None:
                self._attempts.request_sent()
            return
        if self._sent is not None:
            self._send_once_more(stream, head)
            return
        stream.send_request(head, ends=False)
        sink: BodySink = self
        for tap in self.body_taps:
            sink = tap(sink)
        if self.whole_body is None:
            self._client.read_body(sink)
        else:
            if self.whole_body:
                sink.take(self.whole_body)
            sink.end_of_body()
        if self._stream is not None:
            self._stream.flush()

    def _send_once_more(self, stream: UpstreamStream, head: UpstreamRequestHead) -> None:
        """Send a request that another upstream did not process, with what came of its body."""
        sent, self._sent = self._sent, None
        assert sent is not None
        stream.send_request(head, ends=False)
        for piece in sent.pieces:
            stream.send_body(piece)
        if sent.is_complete:
            stream.end_body(sent.trailers)
            if self._attempts is not None:
                self._attempts.request_sent()
        else:
            stream.flush()
            self._client.resume_body()

    # The attempts call these (`RetriableExchange`).

    @property
    def has_response(self) -> bool:
        return self.status != 0

    def needs_upgrade(self) -> bool:
        return bool(self.request_head.upgrade)

    def is_harmless_twice(self) -> bool:
        head = self.request_head
        return not head.has_body and head.method in IDEMPOTENT and not head.upgrade

    def restart(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._try()

    def leave(self) -> None:
        """Give the stream of this try up, or the wait for one."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        stream = self._stream
        if stream is not None:
            self._stream = None
            stream.cancel()

    def adopt(self, endpoint: Endpoint, stream: UpstreamStream) -> None:
        self.leave()
        self._endpoint = endpoint
        self._stream = stream

    def cut(self, error: ProblemError) -> None:
        self.leave()
        self._finish(error)

    # The upstream's stream calls these (`ResponseSink`).

    def writable(self) -> None:
        self._client.resume_body()

    def informed(self, head: ResponseHead) -> None:
        """Pass an interim response on (RFC 9110 section 15.2), but for 100, which is our own."""
        if head.status != 100:
            self._client.inform(head)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        if self._upstream.inspects_responses and self._is_unwanted(head.status):
            self._release()
            return
        if self.response_filter is not None:
            head, body = self.response_filter.whole(head.dated(), body)
        elif not head.has_date:
            head = head.dated()
        if self.extra_fields:
            head = head.replacing(self.extra_fields)
        if self.is_grpc:
            self.grpc_status = read_status(head.fields)
        self.bytes_sent = len(body)
        self.status = head.status
        self._client.respond(head, body)
        self._end()

    def head(self, head: ResponseHead) -> None:
        """`flush` sends it, with what body came along."""
        if self._upstream.inspects_responses and self._is_unwanted(head.status):
            self.leave()
            return
        if self.response_filter is not None:
            head = self.response_filter.head(head.dated())
            self._encoder = self.response_filter.encoder
        elif not head.has_date:
            head = head.dated()
        if self.extra_fields:
            head = head.replacing(self.extra_fields)
        if self.may_stream and self._stream is not None and head.media_type == EVENT_STREAM:
            self._stream.allow_pauses()
        self.status = head.status
        self._is_streaming = True
        self._client.respond(head, None)

    def _is_unwanted(self, status: int) -> bool:
        """Whether something else goes on in place of a response with this status."""
        attempts = self._attempts
        if attempts is None:
            if status not in self._upstream.retries.statuses:
                return False
            attempts = self._need_attempts()
        if not attempts.after_response(status):
            return False
        self._endpoint.responded(status)
        return True

    def body(self, piece: bytes) -> None:
        if self._is_streaming:
            if self._encoder is not None:
                piece = self._encoder.feed(piece)
            self.bytes_sent += len(piece)
            self._client.send(piece)

    def flush(self) -> None:
        if self._is_streaming:
            self._has_begun = True
            self._client.flush()

    def end(self, trailers: Trailers = ()) -> None:
        if self.is_grpc:
            self.grpc_status = read_status(trailers)
        if trailers and self.response_filter is not None:
            trailers = self.response_filter.trailers(trailers)
        if self._is_streaming:
            if self._encoder is not None:
                rest = self._encoder.finish()
                self.bytes_sent += len(rest)
                self._client.send(rest)
            self._client.end(trailers)
        self._end()

    def _end(self) -> None:
        self._release()
        if self.status >= 500:
            self._endpoint.note_failure(f"status {self.status}")
        elif self._endpoint.failures_in_row:
            self._endpoint.failures_in_row = 0
        if self._upstream.inspects_responses:
            self._endpoint.responded(http_status_for(self.grpc_status, self.status))
        self._finish()

    def _release(self) -> None:
        stream = self._stream
        assert stream is not None
        self._stream = None
        stream.release()

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        """From here on bytes are passed both ways unread."""
        stream = self._stream
        assert stream is not None
        upgrade = self.request_head.upgrade.lower()
        if not upgrade or head.upgrade.lower() != upgrade:
            raise UpstreamProtocolError(
                "upstream_protocol", "Unexpected 101 response from the upstream."
            )
        if self.response_filter is not None:
            head = self.response_filter.head(head)
        if self.extra_fields:
            head = head.replacing(self.extra_fields)
        self.status = 101
        self._end_attempts()
        tunnel = self._tunnel = Tunnel(self._client, stream, on_closed=self._close_tunnel)
        stream.upgrade(tunnel)
        self._client.upgrade(head, tunnel)
        if self.on_tunnel is not None:
            self.on_tunnel(tunnel)
        if rest:
            tunnel.body(rest)

    def _close_tunnel(self) -> None:
        tunnel, self._tunnel = self._tunnel, None
        assert tunnel is not None
        self.bytes_received = tunnel.bytes_received
        self.bytes_sent = tunnel.bytes_sent
        self._finish()

    def failed(self, error: UpstreamError) -> None:
        """If none of the response was sent yet, none of it will be."""
        stream, self._stream = self._stream, None
        if isinstance(error, UpstreamSilentError) and self._may_send_again(stream):
            self._upstream.counts.retries[STALE] += 1
            self._open()
            return
        if isinstance(error, UnprocessedError) and self._may_send_unprocessed(error):
            return
        self._endpoint.failed(error.reason)
        if self._has_begun:
            self._client.flush()
            self._finish(error)
        else:
            self.attempt_failed(error)

    def attempt_failed(self, error: UpstreamError) -> None:
        """A try failed, and nothing of a response was sent: is there another one?"""
        had_response = self.status != 0
        if self._is_over:
            return
        self._is_streaming = False
        self.bytes_sent = 0
        self.status = 0
        if not self._need_attempts().after_failure(error, had_response=had_response):
            self._finish(error)

    def _may_send_again(self, stream: UpstreamStream | None) -> bool:
        # The request had no response; it is sent once more where doing it twice does no harm.
        head = self.request_head
        return (
            stream is not None
            and stream.is_replayable
            and not head.has_body
            and head.method in IDEMPOTENT
        )

    def _may_send_unprocessed(self, error: UnprocessedError) -> bool:
        """Whether the request goes to another connection, with its body, as far as it came."""
        sent = error.sent
        if sent is None or self.status or not self._need_attempts().after_refusal():
            return False
        self._sent = sent
        if self.request_head.has_body and not sent.is_complete:
            self._client.pause_body()
        return True

    def _finish(self, error: ProblemError | None = None) -> None:
        if not self._is_over:
            self._is_over = True
            self._stream = None
            self._end_attempts()
            self._done(self, error)

    def _end_attempts(self) -> None:
        if self._attempts is not None:
            self._attempts.close()
            self._attempts = None  # it knows this exchange: what refers to each other is freed late
