"""One proxied request: its bytes to the upstream, and the response's bytes back.

Fifth step of the request path. Both ways are pushed: what one connection reads is written
to the other in the same call, without a task in between, and what arrived together leaves
in one write (`StreamedResponse`). The client is known only by `ClientStream`, the upstream only by
`UpstreamStream`. A side that can't take more pauses the other.

RFC 9112 section 6 (framing is rebuilt, never copied), RFC 9110 sections 7.6 (what a
proxy forwards), 9.2.2 (idempotent methods).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic

from gateway.downstream.stream import Client
from gateway.http.content_coding import Encoder
from gateway.http.errors import (
    ClientClosedError,
    ProblemError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilentError,
)
from gateway.http.response_head import (
    ResponseHead,
    render_head,
    render_interim_head,
    render_switch_head,
)
from gateway.proxy.attempts import Attempts, RetriableExchange
from gateway.proxy.streamed_response import StreamedResponse
from gateway.proxy.tunnel import Tunnel
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.retry_policy import IDEMPOTENT, STALE
from gateway.upstream.stream import Trailers, UpstreamRequestHead, UpstreamStream
from gateway.upstream.upstream import Upstream


class Exchange(RetriableExchange, Generic[Client]):
    """A request and its response. `done` is called once, when it is over, with what went
    wrong; what to do about that depends on whether `status` was sent."""

    # How far it is. Not slots: most exchanges set few of these.
    _stream: UpstreamStream | None = None
    _task: asyncio.Task[None] | None = None
    _response: StreamedResponse | None = None
    """Of a response that did not come whole."""
    _tunnel: Tunnel | None = None
    _attempts: Attempts | None = None
    """Only where there is more than one try, or might be."""
    _key = ""
    _is_over = False
    # What came of it.
    status = 0
    """The status sent to the client; 0 as long as none was."""
    bytes_received = 0
    """Body bytes taken from the client."""
    bytes_sent = 0
    """Body bytes given to the client."""

    def __init__(
        self,
        client: Client,
        upstream: Upstream,
        endpoint: Endpoint,
        head: UpstreamRequestHead,
        done: Callable[[Exchange[Client], ProblemError | None], None],
        *,
        key: str = "",
    ) -> None:
        """`head` is what the upstream gets; `key` is what its endpoint was chosen by."""
        self.client = client
        self._upstream = upstream
        self._endpoint = endpoint
        self.request_head = head
        self._done = done
        if key:
            self._key = key

    def start(self) -> None:
        """Send the request on an idle connection, or on a new one as soon as there is one."""
        self.client.owner = self
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
        stream = self._endpoint.pool.try_open(self)
        if stream is None:
            self._open()
        else:
            self._send(stream)

    def _open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._send_on_new_stream())

    async def _send_on_new_stream(self) -> None:
        try:
            stream = await self._endpoint.pool.open(self)
        except UpstreamError as error:
            self._task = None
            self.attempt_failed(error)
            return
        self._task = None
        self._send(stream)

    # The client's connection calls these.

    def pause(self) -> None:
        """The client takes no more: neither do we."""
        if self._stream is not None:
            self._stream.pause_reading()

    def resume(self) -> None:
        """The client takes bytes again."""
        if self._stream is not None:
            self._stream.resume_reading()

    def client_gone(self) -> None:
        """Nobody waits for the response: the upstream need not go on with it."""
        if self._tunnel is not None:
            self._tunnel.client_lost()
        else:
            self._give_up(ClientClosedError("client_closed", "The client went away."))

    def take(self, piece: bytes) -> None:
        """A piece of the request's body."""
        self.bytes_received += len(piece)
        stream = self._stream
        if stream is None:
            return
        stream.send_body(piece)
        if stream.is_write_paused:
            self.client.pause_reading()

    def end_of_body(self) -> None:
        """The body of the request is complete."""
        if self._stream is not None:
            self._stream.end_body()
            self._request_sent()

    def body_failed(self, error: ProblemError) -> None:
        """Nothing whole can be sent on, and closing is how the upstream learns of it."""
        self._give_up(error)

    # Towards the upstream.

    def _send(self, stream: UpstreamStream) -> None:
        self._stream = stream
        has_body = self.request_head.has_body
        stream.send_request(self.request_head, ends=not has_body)
        if has_body:
            self.client.read_body(self)
        else:
            self._request_sent()

    def _request_sent(self) -> None:
        if self._attempts is not None:
            self._attempts.request_sent()

    def _give_up(self, error: ProblemError) -> None:
        self.leave()
        self._finish(error)

    # The attempts call these (`RetriableExchange`).

    @property
    def has_response(self) -> bool:
        return self.status != 0

    def is_harmless_twice(self) -> bool:
        head = self.request_head
        return not head.has_body and head.method in IDEMPOTENT and not head.is_websocket

    def restart(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._try()

    def leave(self) -> None:
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
        self._give_up(error)

    # The upstream's stream calls these (`ResponseSink`).

    def writable(self) -> None:
        self.client.resume_reading()

    def informed(self, head: ResponseHead) -> None:
        # 100 is our own affair.
        if head.status != 100 and not self.client.is_http_10:
            self.client.write(render_interim_head(head))

    def whole(self, head: ResponseHead, body: bytes) -> None:
        # It leaves in one write.
        if self._upstream.inspects_responses and self._is_unwanted(head.status):
            self._release()
            return
        if self.client.response_filter is not None:
            head, body = self.client.response_filter.whole(head, body)
        self.bytes_sent = len(body)
        self.client.write(self._render(head, is_chunked=False) + body)
        self._end()

    def head(self, head: ResponseHead) -> None:
        # `flush` sends it, with what body came along.
        if self._upstream.inspects_responses and self._is_unwanted(head.status):
            self.leave()
            return
        client = self.client
        encoder: Encoder | None = None
        if client.response_filter is not None:
            head = client.response_filter.head(head)
            encoder = client.response_filter.encoder
        is_chunked = False
        if head.length is None and head.has_body(is_response_to_head=client.method == "HEAD"):
            if client.is_http_10:
                # The end of the connection is all that HTTP/1.0 has here.
                client.keep_alive = False
            else:
                is_chunked = True
        rendered = self._render(head, is_chunked=is_chunked)
        self._response = StreamedResponse(client, rendered, is_chunked=is_chunked, encoder=encoder)

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

    def _render(self, head: ResponseHead, *, is_chunked: bool) -> bytes:
        client = self.client
        keep_alive = client.settle_keep_alive()
        self.status = head.status
        return render_head(
            head,
            is_chunked=is_chunked,
            is_http_10=client.is_http_10,
            keep_alive=keep_alive,
            request_id=client.request_id,
            extra_fields=client.extra_fields,
        )

    def body(self, piece: bytes) -> None:
        if self._response is not None:
            self._response.body(piece)

    def flush(self) -> None:
        if self._response is not None:
            self._response.flush()

    def end(self, trailers: Trailers = ()) -> None:
        if self._response is not None:
            self._response.end()
        self._end()

    def _end(self) -> None:
        self._release()
        if self._upstream.inspects_responses:
            self._endpoint.responded(self.status)
        self._finish()

    def _release(self) -> None:
        stream = self._stream
        assert stream is not None
        self._stream = None
        stream.release()

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        # From here on bytes are passed both ways unread.
        stream, client = self._stream, self.client
        assert stream is not None
        if not self.request_head.is_websocket or not head.is_websocket:
            raise UpstreamProtocolError(
                "upstream_protocol", "Unexpected 101 response from the upstream."
            )
        self.status = 101
        if self._attempts is not None:
            self._attempts.close()
        client.keep_alive = False
        client.write(render_switch_head(head, self.client.request_id))
        tunnel = self._tunnel = Tunnel(client, stream, on_closed=self._close_tunnel)
        stream.upgrade(tunnel)
        client.switch_to(tunnel)
        if rest:
            tunnel.upstream_received(rest)

    def _close_tunnel(self) -> None:
        tunnel = self._tunnel
        assert tunnel is not None
        self.bytes_received = tunnel.bytes_received
        self.bytes_sent = tunnel.bytes_sent
        self._finish()

    def failed(self, error: UpstreamError) -> None:
        # If none of the response was sent yet, none of it will be.
        if isinstance(error, UpstreamSilentError) and self._may_send_again():
            self._upstream.counts.retries[STALE] += 1
            self._stream = None
            self._open()
            return
        self._stream = None
        self._endpoint.failed()
        if self._response is not None and self._response.has_begun:
            self._response.flush()
            self._finish(error)
        else:
            self.attempt_failed(error)

    def attempt_failed(self, error: UpstreamError) -> None:
        had_response = self.status != 0
        self._response = None
        self.status = 0
        if not self._need_attempts().after_failure(error, had_response=had_response):
            self._finish(error)

    def _may_send_again(self) -> bool:
        # Closing an idle connection and using it can cross on the wire. The request got no
        # response; it is sent once more where doing it twice does no harm.
        stream, head = self._stream, self.request_head
        return (
            stream is not None
            and stream.is_replayable
            and not head.has_body
            and head.method in IDEMPOTENT
        )

    def _finish(self, error: ProblemError | None = None) -> None:
        if not self._is_over:
            self._is_over = True
            self._stream = None
            if self._response is not None:
                self.bytes_sent = self._response.bytes_sent
            if self._attempts is not None:
                self._attempts.close()
            self._done(self, error)
