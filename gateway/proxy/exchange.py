"""One proxied request: its bytes to the upstream, and the response's bytes back.

Fifth step of the request path. Both ways are pushed: what one connection reads is written
to the other in the same call, without a task in between, and what arrived together leaves
in one write (`StreamedResponse`). The client is known only by `ClientStream`, the upstream only by
`UpstreamConnection`. A side that can't take more pauses the other.

RFC 9112 section 6 (framing is rebuilt, never copied), RFC 9110 sections 7.6 (what a
proxy forwards), 9.2.2 (idempotent methods).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.downstream.request import Request
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
from gateway.http.h1_body import LAST_CHUNK, render_chunk
from gateway.http.response_head import ResponseHead
from gateway.proxy.attempts import Attempts
from gateway.proxy.response_filter import ResponseFilter
from gateway.proxy.tunnel import Tunnel
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.h1 import UpstreamConnection
from gateway.upstream.retry_policy import IDEMPOTENT, STALE
from gateway.upstream.upstream import Upstream

Caller = TypeVar("Caller")
"""Whose exchange it is."""


class Exchange(Generic[Caller]):
    """A request and its response. `done` is called once, when it is over, with what went
    wrong; what to do about that depends on whether `status` was sent."""

    # How far it is. Not slots: most exchanges set few of these.
    _connection: UpstreamConnection | None = None
    _task: asyncio.Task[None] | None = None
    _is_request_sent = False
    _unsent = b""
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
    # What stands between the two sides; set before `start`.
    response_filter: ResponseFilter | None = None
    extra_fields: Headers = ()
    """For the head of the response."""
    body_taps: tuple[Callable[[BodySink], BodySink], ...] = ()
    """What stands between the body of the request and the upstream."""
    # What came of it.
    status = 0
    """The status sent to the client; 0 as long as none was."""
    bytes_received = 0
    """Body bytes taken from the client."""
    bytes_sent = 0
    """Body bytes given to the client."""

    def __init__(
        self,
        caller: Caller,
        client: ClientStream,
        request: Request,
        *,
        upstream: Upstream,
        endpoint: Endpoint,
        head: bytes,
        done: Callable[[Exchange[Caller], ProblemError | None], None],
        key: str = "",
    ) -> None:
        """`head` is what the upstream gets; `key` is what its endpoint was chosen by."""
        self.caller = caller
        self._client = client
        self._request = request
        self._upstream = upstream
        self._endpoint = endpoint
        self._head = head
        self._done = done
        if key:
            self._key = key

    def start(self) -> None:
        """Send the request on an idle connection, or on a new one as soon as there is one."""
        self._client.owner = self
        if self._upstream.is_timed:
            self._need_attempts().begin()
        self._try()

    def _need_attempts(self) -> Attempts:
        attempts = self._attempts
        if attempts is None:
            attempts = Attempts(self, self._upstream, self._endpoint, self._key)
            self._attempts = attempts
        return attempts

    def _try(self) -> None:
        connection = self._endpoint.take_idle()
        if connection is None:
            self._dial()
        else:
            self._send(connection)

    def _dial(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._send_on_new_connection())

    async def _send_on_new_connection(self) -> None:
        try:
            connection = await self._endpoint.connect()
        except UpstreamError as error:
            self._task = None
            self.failed(error)
            return
        self._task = None
        self._send(connection)

    # The client's connection calls these.

    def pause(self) -> None:
        """The client takes no more: neither do we."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        """The client takes bytes again."""
        if self._connection is not None:
            self._connection.resume_reading()

    def client_gone(self) -> None:
        """Nobody waits for the response: the upstream need not go on with it."""
        if self._tunnel is not None:
            self._tunnel.client_lost()
        else:
            self._give_up(ClientClosedError("client_closed", "The client went away."))

    def take(self, piece: bytes) -> None:
        """A piece of the request's body."""
        self.bytes_received += len(piece)
        connection = self._connection
        if connection is None:
            return
        if self._request.head.is_chunked:
            piece = render_chunk(piece)
        if self._unsent:
            piece = self._unsent + piece
            self._unsent = b""
        connection.write(piece)
        if connection.is_write_paused:
            connection.touch()
            self._client.pause_body()

    def end_of_body(self) -> None:
        """The body of the request is complete."""
        self._send_head()
        self._finish_request(LAST_CHUNK if self._request.head.is_chunked else b"")

    def body_failed(self, error: ProblemError) -> None:
        """Nothing whole can be sent on, and closing is how the upstream learns of it."""
        self._give_up(error)

    # Towards the upstream.

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.begin(self, is_head_request=self._request.method == "HEAD")
        if self._request.head.has_body:
            # Sent with the first of the body, where that has come already.
            self._unsent = self._head
            sink: BodySink = self
            for tap in self.body_taps:
                sink = tap(sink)
            self._client.read_body(sink)
            self._send_head()
        else:
            self._finish_request(self._head)

    def _send_head(self) -> None:
        head, self._unsent = self._unsent, b""
        if head and self._connection is not None:
            self._connection.write(head)

    def _finish_request(self, last: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        self._is_request_sent = True
        if last:
            connection.write(last)
        connection.await_head(self._endpoint.timeouts.response_head_s)
        if self._attempts is not None:
            self._attempts.request_sent()

    def _give_up(self, error: ProblemError) -> None:
        self.leave()
        self._finish(error)

    # The attempts call these (`Attempted`).

    @property
    def has_response(self) -> bool:
        """Whether the head of a response came."""
        return self.status != 0

    @property
    def has_body(self) -> bool:
        """Whether the request has a body."""
        return self._request.head.has_body

    @property
    def request_head(self) -> bytes:
        """What the upstream gets."""
        return self._head

    @property
    def is_head_request(self) -> bool:
        """Whether its response has no body, whatever it says."""
        return self._request.method == "HEAD"

    def is_harmless_twice(self) -> bool:
        """Whether a request of which bytes left may be sent again."""
        request = self._request
        return (
            not request.head.has_body and request.method in IDEMPOTENT and not request.is_websocket
        )

    def restart(self, endpoint: Endpoint) -> None:
        """Try again, there."""
        self._endpoint = endpoint
        self._is_request_sent = False
        self._try()

    def leave(self) -> None:
        """Give the connection of this try up, or the wait for one."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.abort()

    def adopt(self, endpoint: Endpoint, connection: UpstreamConnection) -> None:
        """Go on with this connection; the one of the first try is given up."""
        self.leave()
        self._endpoint = endpoint
        self._connection = connection
        self._is_request_sent = True

    def cut(self, error: ProblemError) -> None:
        """Give everything up."""
        self._give_up(error)

    # The upstream's connection calls these.

    def upstream_writable(self) -> None:
        """The upstream takes bytes again."""
        if not self._is_request_sent and self._connection is not None:
            self._connection.wait_for_client()
        self._client.resume_body()

    def interim(self, head: ResponseHead) -> None:
        """Pass an interim response on (RFC 9110 section 15.2), but for 100, which is our own."""
        if head.status != 100:
            self._client.inform(head)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """All of a response whose length was given: it leaves in one write."""
        if self._upstream.inspects_responses and self._is_unwanted(head.status):
            self._release()
            return
        if self.response_filter is not None:
            head, body = self.response_filter.whole(head, body)
        if self.extra_fields:
            head = head.replacing(self.extra_fields)
        self.bytes_sent = len(body)
        self.status = head.status
        self._client.respond(head, body)
        self._end()

    def head(self, head: ResponseHead) -> None:
        """The head of a response; `flush` sends it, with what body came along."""
        if self._upstream.inspects_responses and self._is_unwanted(head.status):
            self.leave()
            return
        if self.response_filter is not None:
            head = self.response_filter.head(head)
            self._encoder = self.response_filter.encoder
        if self.extra_fields:
            head = head.replacing(self.extra_fields)
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
        """A piece of the response, which leaves with `flush`."""
        if self._is_streaming:
            if self._encoder is not None:
                piece = self._encoder.feed(piece)
            self.bytes_sent += len(piece)
            self._client.send(piece)

    def flush(self) -> None:
        """Send what came with one read."""
        if self._is_streaming:
            self._has_begun = True
            self._client.flush()

    def end(self) -> None:
        """The response is complete: send the rest and give the connection back."""
        if self._is_streaming:
            if self._encoder is not None:
                rest = self._encoder.finish()
                self.bytes_sent += len(rest)
                self._client.send(rest)
            self._client.end()
        self._end()

    def _end(self) -> None:
        self._release()
        if self._upstream.inspects_responses:
            self._endpoint.responded(self.status)
        self._finish()

    def _release(self) -> None:
        connection = self._connection
        assert connection is not None
        self._connection = None
        if self._is_request_sent and connection.may_be_reused:
            if connection.is_reading_paused:
                # Our client was full up with the last of the response; the next one is not.
                connection.resume_reading()
            self._endpoint.release(connection)
        else:
            # Not all of the request was wanted; what is left of it can't be unsent.
            connection.abort()

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """The upstream returns 101: from here on bytes are passed both ways unread."""
        connection = self._connection
        assert connection is not None
        if not self._request.is_websocket or not head.is_websocket:
            raise UpstreamProtocolError("upstream_protocol", "A 101 nobody asked for.")
        self.status = 101
        if self._attempts is not None:
            self._attempts.close()
        tunnel = self._tunnel = Tunnel(self._client, connection, on_closed=self._close_tunnel)
        connection.tunnel(tunnel, idle_timeout_s=self._endpoint.timeouts.tunnel_s)
        self._client.upgrade(head, tunnel)
        if rest:
            tunnel.upstream_received(rest)

    def _close_tunnel(self) -> None:
        tunnel = self._tunnel
        assert tunnel is not None
        self.bytes_received = tunnel.bytes_received
        self.bytes_sent = tunnel.bytes_sent
        self._finish()

    def fail(self, error: UpstreamError) -> None:
        """The response will not be complete. If none of it was sent yet, none of it will be."""
        if isinstance(error, UpstreamSilentError) and self._may_send_again():
            self._upstream.counts.retries[STALE] += 1
            self._connection = None
            self._dial()
            return
        self._connection = None
        self._endpoint.failed()
        if self._has_begun:
            self._client.flush()
            self._finish(error)
        else:
            self.failed(error)

    def failed(self, error: UpstreamError) -> None:
        """A try failed, and nothing of a response was sent: is there another one?"""
        had_response = self.status != 0
        self._is_streaming = False
        self.bytes_sent = 0
        self.status = 0
        if not self._need_attempts().after_failure(error, had_response=had_response):
            self._finish(error)

    def _may_send_again(self) -> bool:
        # Closing an idle connection and using it can cross on the wire. The request was
        # not answered; it is sent once more where doing it twice does no harm.
        connection = self._connection
        return (
            connection is not None
            and connection.is_reused
            and not self._request.head.has_body
            and self._request.method in IDEMPOTENT
        )

    def _finish(self, error: ProblemError | None = None) -> None:
        if not self._is_over:
            self._is_over = True
            self._connection = None
            if self._attempts is not None:
                self._attempts.close()
            self._done(self, error)
