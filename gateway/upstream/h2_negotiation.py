"""A new connection to an upstream target, until it is known which protocol it speaks.

RFC 7301 (ALPN); RFC 9113 section 3.3 (prior knowledge).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.upstream.h1 import UpstreamConnection
from gateway.upstream.h2 import MultiplexedConnection


class Negotiation(asyncio.Protocol):
    """A new connection, until it is known what it speaks: what ALPN chose, or HTTP/2 where there is
    no TLS. Of HTTP/2, it stays the wire."""

    def __init__(
        self,
        make_http1: Callable[[], UpstreamConnection],
        make_http2: Callable[[bytes], MultiplexedConnection],
    ) -> None:
        """`make_http2` takes the scheme."""
        self._make_http1 = make_http1
        self._make_http2 = make_http2
        self.http1: UpstreamConnection | None = None
        self.http2: MultiplexedConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport subclasses, they only behave so.
        wire = cast(asyncio.Transport, transport)
        tls = wire.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.http1 = self._make_http1()
            wire.set_protocol(cast(asyncio.Protocol, self.http1))
            self.http1.connection_made(wire)
            return
        self.http2 = self._make_http2(b"http" if tls is None else b"https")
        self.http2.attach(wire)

    def data_received(self, data: bytes) -> None:
        if self.http2 is not None:
            self.http2.receive(data)

    def pause_writing(self) -> None:
        if self.http2 is not None:
            self.http2.pause_writing()

    def resume_writing(self) -> None:
        if self.http2 is not None:
            self.http2.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.http2 is not None:
            self.http2.lost()
