"""One proxied request: its bytes to the upstream, and the answer's bytes back.

Fifth step of the request path. The answer is pushed: what the upstream connection reads
is rendered and written to the client in the same call, without a task in between, and
what arrived together leaves in one write. The client is known only by `ClientSide`, the
upstream only by `UpstreamConnection`. A side that can't take more pauses the other.

RFC 9112 section 6 (framing is rebuilt, never copied), RFC 9110 sections 7.6 (what a
proxy forwards), 9.2.2 (idempotent methods).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from gateway.proxy.answer import (
    BODILESS,
    LAST_CHUNK,
    Framing,
    is_websocket_accepted,
    render_chunk,
    render_head,
    render_interim_head,
    render_switch_head,
)
from gateway.proxy.connection import UpstreamConnection
from gateway.proxy.deadline import Deadline
from gateway.proxy.headers import RawHeaders
from gateway.proxy.problems import (
    ProblemError,
    RequestTimeoutError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilentError,
)
from gateway.proxy.tunnel import Tunnel, TunnelClient
from gateway.proxy.upstream import Target, Timeouts

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class RequestBody(Protocol):
    """The body of a request, as it comes in."""

    def is_eof(self) -> bool:
        """Whether all of it has arrived."""

    def read_nowait(self, n: int = -1) -> bytes:
        """What has arrived and was not read yet."""

    async def readany(self) -> bytes:
        """The next piece, empty at the end. Raises where the client breaks off."""


class ClientSide(TunnelClient, Protocol):
    """What an exchange knows of the client's connection, which calls `pause` and `resume`."""

    is_http_10: bool
    keep_alive: bool
    """Whether the connection can serve another request after this one."""

    def settle_keep_alive(self) -> bool:
        """Decide on `keep_alive`, for the head that tells it."""

    def feed_tunnel(self, tunnel: Tunnel) -> None:
        """Hand every byte that comes from now on to the tunnel."""


class Exchange:
    """A request and its answer."""

    __slots__ = (
        "_body", "_body_deadline", "_body_timeout_s", "_client", "_connection", "_done",
        "_has_begun", "_head", "_is_chunked_answer", "_is_chunked_request", "_is_request_sent",
        "_is_upgrade", "_method", "_out", "_pieces", "_request_id", "_target", "_timeouts",
        "_tunnel", "_writable", "bytes_received", "bytes_sent", "status",
    )  # fmt: skip

    def __init__(
        self,
        *,
        client: ClientSide,
        target: Target,
        timeouts: Timeouts,
        method: str,
        head: bytes,
        request_id: bytes,
        body: RequestBody | None = None,
        is_chunked: bool = False,
        is_upgrade: bool = False,
        body_timeout_s: float = 60.0,
    ) -> None:
        # What to send, and between whom.
        self._client = client
        self._target = target
        self._timeouts = timeouts
        self._method = method
        self._head = head
        self._request_id = request_id
        self._body = body
        self._is_chunked_request = is_chunked
        self._is_upgrade = is_upgrade
        self._body_timeout_s = body_timeout_s
        # How far it is.
        self._connection: UpstreamConnection | None = None
        self._done: asyncio.Future[None] | None = None
        self._is_request_sent = False
        self._writable: asyncio.Future[None] | None = None
        self._body_deadline: Deadline | None = None
        self._is_chunked_answer = False
        self._out: list[bytes] = []
        self._pieces: list[bytes] = []
        self._tunnel: Tunnel | None = None
        self._has_begun = False
        # What came of it.
        self.status = 0
        """The status sent to the client; 0 as long as none was."""
        self.bytes_received = 0
        """Body bytes taken from the client."""
        self.bytes_sent = 0
        """Body bytes given to the client."""

    async def run(self) -> None:
        """Forward the request and the answer.

        Raises `ProblemError`; what to do about it depends on whether `status` was sent.
        """
        connection = self._target.take_idle() or await self._target.connect()
        try:
            await self._attempt(connection)
        except UpstreamSilentError:
            # Closing an idle connection and using it can cross on the wire. The request
            # was not answered; it is sent once more where doing it twice does no harm.
            if not connection.is_reused or self._body is not None:
                raise
            if self._method not in IDEMPOTENT:
                raise
            await self._attempt(await self._target.connect())

    # From the client's connection.

    def pause(self) -> None:
        """The client takes no more: neither do we."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        """The client takes bytes again."""
        if self._connection is not None:
            self._connection.resume_reading()

    async def _attempt(self, connection: UpstreamConnection) -> None:
        loop = asyncio.get_running_loop()
        self._connection = connection
        self._done = loop.create_future()
        connection.begin(self, expects_body=self._method != "HEAD")
        sending: asyncio.Task[None] | None = None
        body = self._body
        if body is None:
            self._send_last(self._head)
        elif body.is_eof():
            self._send_last(self._head + self._frame_whole(body.read_nowait()))
        else:
            connection.write(self._head)
            sending = loop.create_task(self._send_body(connection, body))
        try:
            await self._done
        except asyncio.CancelledError:
            connection.abort()
            raise
        finally:
            self._connection = None
            if sending is not None and not sending.done():
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sending
            if self._body_deadline is not None:
                self._body_deadline.close()
            if self._tunnel is not None:
                self.bytes_received = self._tunnel.bytes_received
                self.bytes_sent = self._tunnel.bytes_sent

    # Towards the upstream.

    def _send_last(self, chunk: bytes) -> None:
        connection = self._connection
        assert connection is not None
        connection.write(chunk)
        self._is_request_sent = True
        connection.await_head(self._timeouts.response_head_s)

    def _frame_whole(self, body: bytes) -> bytes:
        self.bytes_received = len(body)
        if not self._is_chunked_request:
            return body
        return render_chunk(body) + LAST_CHUNK if body else LAST_CHUNK

    async def _send_body(self, connection: UpstreamConnection, body: RequestBody) -> None:
        loop = asyncio.get_running_loop()
        deadline = self._body_deadline = Deadline(loop, self._client_stalled)
        try:
            while True:
                connection.wait_for_client()
                deadline.set(self._body_timeout_s)
                piece = await body.readany()
                deadline.clear()
                if not piece:
                    break
                self.bytes_received += len(piece)
                connection.write(render_chunk(piece) if self._is_chunked_request else piece)
                connection.touch()
                if connection.is_write_paused:
                    self._writable = loop.create_future()
                    await self._writable
        except asyncio.CancelledError:
            raise
        except Exception:
            # The client's framing broke, or the client went away: nothing whole can be
            # sent on, and closing is how the upstream learns that the body has no end.
            self._give_up(RequestTimeoutError("client_body", "The request body broke off."))
            return
        if self._done is not None and not self._done.done():
            self._send_last(LAST_CHUNK if self._is_chunked_request else b"")

    def _client_stalled(self) -> None:
        self._give_up(RequestTimeoutError("client_body_timeout", "The request body stopped."))

    def _give_up(self, error: ProblemError) -> None:
        if self._connection is not None:
            self._connection.abort()
        self._finish(error)

    def upstream_writable(self) -> None:
        """The upstream connection takes bytes again."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # From the upstream, called by its connection.

    def interim(self, status: int, headers: RawHeaders) -> None:
        """Pass an interim answer on (RFC 9110 section 15.2), but for 100, which is our own."""
        if status != 100 and not self._client.is_http_10:
            self._client.write(render_interim_head(status, headers))

    def head(self, status: int, headers: RawHeaders) -> None:
        """Render the head of the answer; `flush` sends it, with what body came along."""
        client = self._client
        rendered, framing = render_head(
            status,
            headers,
            has_body=self._method != "HEAD" and status not in BODILESS,
            is_http_10=client.is_http_10,
            keep_alive=client.settle_keep_alive(),
            request_id=self._request_id,
        )
        if framing is Framing.CLOSE:
            client.keep_alive = False
        self._is_chunked_answer = framing is Framing.CHUNKED
        self.status = status
        self._out.append(rendered)

    def body(self, chunk: bytes) -> None:
        """Keep a piece until `flush`."""
        self._pieces.append(chunk)
        self.bytes_sent += len(chunk)

    def flush(self) -> None:
        """Send what came with one read, in one write."""
        out, pieces = self._out, self._pieces
        if pieces:
            self._pieces = []
            if self._is_chunked_answer:
                out.append(b"%x\r\n" % sum(map(len, pieces)))
                out += pieces
                out.append(b"\r\n")
            else:
                out += pieces
        if out:
            self._out = []
            self._has_begun = True
            self._client.write(out[0] if len(out) == 1 else b"".join(out))

    def end(self) -> None:
        """The answer is complete: send the rest and give the connection back."""
        connection = self._connection
        assert connection is not None
        if self._is_chunked_answer:
            self._pieces, pieces = [], self._pieces
            if pieces:
                self._out += (b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n")
            self._out.append(LAST_CHUNK)
        self.flush()
        if self._is_request_sent and connection.may_be_reused:
            self._target.release(connection)
        else:
            # Not all of the request was wanted; what is left of it can't be unsent.
            connection.abort()
        self._finish()

    def switched(self, headers: RawHeaders, rest: bytes) -> None:
        """The upstream answers 101: from here on bytes are passed both ways unread."""
        connection, client = self._connection, self._client
        assert connection is not None
        if not self._is_upgrade or not is_websocket_accepted(headers):
            self._give_up(UpstreamProtocolError("upstream_protocol", "A 101 nobody asked for."))
            return
        self.status = 101
        client.keep_alive = False
        client.write(render_switch_head(headers, self._request_id))
        tunnel = self._tunnel = Tunnel(client, connection, on_closed=self._finish)
        connection.tunnel(tunnel, idle_timeout_s=self._timeouts.tunnel_s)
        client.feed_tunnel(tunnel)
        if rest:
            tunnel.upstream_received(rest)

    def fail(self, error: UpstreamError) -> None:
        """The answer will not be complete. If none of it was sent yet, none of it will be."""
        if self._has_begun:
            self.flush()
        else:
            self._out.clear()
            self.status = 0
        self._finish(error)

    def _finish(self, error: ProblemError | None = None) -> None:
        done = self._done
        if done is not None and not done.done():
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
