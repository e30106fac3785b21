"""A WebSocket after its handshake: bytes both ways, unread, with back-pressure.

RFC 6455 section 4.2.2, RFC 9110 section 7.8. The handshake was an ordinary request, so
the token was checked as for any other; how long the tunnel lives after that is between
the two sides and `timeouts.tunnel`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.upstream.stream import UpstreamStream


class TunnelClient(Protocol):
    """What a tunnel knows of the client's connection."""

    def write(self, chunk: bytes) -> None:
        """Send bytes."""

    def pause_reading(self) -> None:
        """Take no more bytes from the client until `resume_reading`."""

    def resume_reading(self) -> None:
        """Take bytes from the client again."""


class Tunnel:
    """Connects the two sides until one of them ends."""

    __slots__ = ("_client", "_on_closed", "_upstream", "bytes_received", "bytes_sent")

    def __init__(
        self,
        client: TunnelClient,
        upstream: UpstreamStream,
        *,
        on_closed: Callable[[], None],
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._on_closed = on_closed
        self.bytes_received = 0
        self.bytes_sent = 0

    # The upstream's side.

    def upstream_received(self, data: bytes) -> None:
        """Bytes for the client."""
        self.bytes_sent += len(data)
        self._client.write(data)

    def upstream_writable(self) -> None:
        """The upstream takes bytes again."""
        self._client.resume_reading()

    def upstream_lost(self) -> None:
        """The upstream is gone."""
        self._on_closed()

    # The client's side.

    def client_received(self, data: bytes) -> None:
        """Bytes for the upstream."""
        self.bytes_received += len(data)
        self._upstream.send_raw(data)
        if self._upstream.is_write_paused:
            self._client.pause_reading()

    def client_lost(self) -> None:
        """The client is gone."""
        self._upstream.close()
        self._on_closed()
