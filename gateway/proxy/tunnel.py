"""A WebSocket after its handshake: bytes both ways, unread, with back-pressure.

RFC 6455 section 4.2.2, RFC 9110 section 7.8. The handshake was an ordinary request, so
the token was checked as for any other; how long the tunnel lives after that is between
the two sides and `timeouts.tunnel`, and where the route says so, up to its token (`expire`).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.downstream.stream import ClientStream
from gateway.http.errors import ProblemError
from gateway.http.fields import Trailers
from gateway.proxy.token_watch import CLOSE_FRAME, FrameBoundary
from gateway.upstream.stream import ResponseSink, UpstreamStream


class Tunnel(ResponseSink):
    """Connects the two sides until one of them ends."""

    __slots__ = (
        "_client", "_is_over", "_on_closed", "_upstream", "boundary", "bytes_received",
        "bytes_sent",
    )  # fmt: skip

    def __init__(
        self,
        client: ClientStream,
        upstream: UpstreamStream,
        *,
        on_closed: Callable[[], None],
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._on_closed = on_closed
        self._is_over = False
        self.boundary: FrameBoundary | None = None
        """Follows the frames for the client, where one of ours may have to stand between them."""
        self.bytes_received = 0
        self.bytes_sent = 0

    # The upstream's stream calls these (`ResponseSink`).

    def body(self, piece: bytes) -> None:
        self.bytes_sent += len(piece)
        if self.boundary is not None:
            self.boundary.feed(piece)
        self._client.send(piece)
        self._client.flush()

    def writable(self) -> None:
        self._client.resume_body()

    def end(self, trailers: Trailers = ()) -> None:
        self._is_over = True
        self._on_closed()

    # The client's stream calls these (`BodySink`).

    def take(self, piece: bytes) -> None:
        """Bytes for the upstream."""
        self.bytes_received += len(piece)
        self._upstream.send_raw(piece)
        if self._upstream.is_write_paused:
            self._client.pause_body()

    def end_of_body(self, trailers: Trailers = ()) -> None:
        """The client sends no more."""
        self.client_lost()

    def body_failed(self, error: ProblemError) -> None:
        """The client is gone."""
        self.client_lost()

    def client_lost(self) -> None:
        """The client is gone."""
        self._is_over = True
        self._upstream.close()
        self._on_closed()

    def expire(self) -> None:
        """End both sides, since the token is no longer valid: with a frame that says so, unless
        one of the upstream's is half sent."""
        if self._is_over:
            return
        if self.boundary is not None and self.boundary.is_between_frames:
            self._client.send(CLOSE_FRAME)
            self._client.flush()
        self.client_lost()
