"""The hot path without sockets: a cached token, a small response, a reused connection.

Drives the real data plane with transports that only keep what is written, so that what
is measured is the gateway's own code and nothing of the kernel or the event loop.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from gateway.access_log import AccessLog, NoAccessLog, open_access_log
from gateway.app.build.listeners import client_limits, http2_settings
from gateway.config import Config
from gateway.downstream.connections import ConnectionManager
from gateway.downstream.h1 import H1Connection
from gateway.metrics import Metrics
from gateway.oauth.access import Access
from gateway.oauth.endpoints.paths import ProviderPaths
from gateway.oauth.models import AccessToken, digest_token
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.pipeline import build_pipeline
from gateway.proxy.request_log import RequestLog
from gateway.proxy.router import Route, Router
from gateway.proxy.upstream_head import render_identity
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.target import Protocol, Target
from gateway.upstream.upstream import Upstream

TOKEN = "t" * 43
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 27\r\nConnection: keep-alive\r\n\r\n"
    b'{"ok":true,"items":[1,2,3]}'
)


class FakeTransport:
    """Takes what is written, and does nothing with it."""

    def __init__(self) -> None:
        self.written = 0
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        """Another one takes over."""
        self.protocol = protocol

    def write(self, chunk: bytes) -> None:
        """Count what the gateway sends."""
        self.written += len(chunk)

    def is_closing(self) -> bool:
        """Never."""
        return False

    def is_reading(self) -> bool:
        """Always."""
        return True

    def get_extra_info(self, name: str) -> Any:
        """The address of the peer."""
        return ("127.0.0.1", 40000) if name == "peername" else None

    def abort(self) -> None:
        """Nothing to cut."""

    close = abort


class OneToken:
    """A store that knows one token."""

    async def get_token(self, digest: bytes) -> AccessToken | None:
        """The token, whatever is asked for."""
        return AccessToken(digest_token(TOKEN), "shop", "The shop", ("orders:read",), 0.0, 4e9)


class HotPath:
    """One client connection, one upstream connection, and requests between them."""

    path = "/api"
    protocol: Protocol = "http1"

    def __init__(self, *, logs: bool) -> None:
        self._metrics = Metrics()
        self._directory = tempfile.TemporaryDirectory()
        self._log: AccessLog = NoAccessLog()
        if logs:
            path = str(Path(self._directory.name) / "access.log")
            self._log = open_access_log(path, on_drop=lambda lines: None)
        self._validator = TokenCache(
            cast(Any, OneToken()), self._metrics, render_identity=render_identity
        )
        timeouts = UpstreamTimeouts()
        target = Target("http://127.0.0.1:9", timeouts, protocol=self.protocol)
        counts = self._metrics.data_plane
        upstream = Upstream("orders", [target], durations=counts.upstream("orders"))
        route = Route(
            name="orders",
            path=self.path,
            upstream=upstream,
            metrics=counts.route("orders"),
            access=Access(frozenset({"orders:read"})),
        )
        endpoints: Any = SimpleNamespace(known_paths=ProviderPaths({"/token"}))
        pipeline = build_pipeline(
            router=Router([route]),
            validator=self._validator,
            endpoints=endpoints,
            log=RequestLog(self._metrics, self._log),
        )
        server = ConnectionManager(
            pipeline.handle, limits=client_limits(Config()), metrics=self._metrics
        )
        server.http2 = http2_settings(Config())
        self._finished = counts.route("orders").requests
        self._client: H1Connection = server.make_connection()
        self._client_transport = FakeTransport()
        self._client.connection_made(cast(Any, self._client_transport))
        self._pool = upstream.endpoints[0].pool
        self._connect()

    def _connect(self) -> None:
        """Connect to the upstream."""
        self._upstream = self._pool.make_connection()
        self._upstream.connection_made(cast(Any, FakeTransport()))
        self._pool.add(self._upstream)

    async def prepare(self) -> None:
        """Bring the tokens into the cache."""
        for token in (TOKEN, *TOKENS):
            await self._validator.lookup(token)

    def run(self, count: int, *, extra: bytes = b"") -> None:
        """Send `count` requests; `extra`, if given, is a field line with one `%d`, so that no
        head is like the one before."""
        head = (
            b"GET /api/orders?page=2 HTTP/1.1\r\nHost: gateway.example\r\n"
            b"User-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n%b"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
        )
        receive, response = self._client.data_received, self._upstream.data_received
        before = self._finished["GET", 200, "upstream"]
        if not extra:
            request = head % b""
            for _ in range(count):
                receive(request)
                response(RESPONSE)
        else:
            for number in range(count):
                receive(head % (extra % number))
                response(RESPONSE)
        if self._finished["GET", 200, "upstream"] - before != count:
            raise RuntimeError(f"not every request was served: {dict(self._finished)}")

    def run_varied(self, count: int) -> None:
        """Send `count` requests as behind a tracing mesh: path, query, token, request id and
        traceparent differ each time, and so do the fields of the responses."""
        receive, response = self._client.data_received, self._upstream.data_received
        before = self._finished["GET", 200, "upstream"]
        for number in range(count):
            receive(VARIED % (number, number % 9, TOKENS[number % 50].encode(), number, number))
            response(VARIED_RESPONSE % (number, number))
        if self._finished["GET", 200, "upstream"] - before != count:
            raise RuntimeError(f"not every request was served: {dict(self._finished)}")

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()
        self._directory.cleanup()


TOKENS = tuple(f"{number:02d}{'t' * 41}" for number in range(50))
VARIED = (
    b"GET /api/orders/%d?page=%d HTTP/1.1\r\nHost: gateway.example\r\n"
    b"User-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"
    b"Authorization: Bearer %b\r\nX-Request-Id: %032x\r\n"
    b"traceparent: 00-%032x-00f067aa0ba902b7-01\r\n\r\n"
)
VARIED_RESPONSE = RESPONSE.replace(
    b"Connection: keep-alive\r\n",
    b'Connection: keep-alive\r\nETag: "%x"\r\nCache-Control: no-cache\r\nX-Request-Id: %032x\r\n',
)
VARYING = b"traceparent: 00-%032x-00f067aa0ba902b7-01\r\n"


def with_hot_path(work: Any, *, logs: bool, make: type[HotPath] | None = None) -> None:
    """Call `work` with a prepared hot path, in a running event loop, and await what it returns, if
    anything."""

    async def main() -> None:
        path = (make or HotPath)(logs=logs)
        await path.prepare()
        waits = work(path)
        if waits is not None:
            await waits
        path.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
