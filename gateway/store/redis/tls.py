"""One TLS context for all connections of a Redis client.

redis-py makes one for each connection, on the event loop: with the CAs of the system, each holds
everything else up for some 40 ms.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from typing import Any

from redis.asyncio import RedisCluster, Sentinel
from redis.asyncio.connection import RedisSSLContext, SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection

from gateway.oauth.models import Clock
from gateway.store_url import RedisUrl

LOOK_AGAIN_S = 60.0
"""Files that were replaced, as certificates are that end soon, are read again after this long."""


class SharedContext:
    """The context of the connections to a URL, made in a thread."""

    def __init__(self, url: RedisUrl, *, clock: Clock = time.monotonic) -> None:
        self._files: dict[str, Any] = {"ca_certs": url.ca, "certfile": url.cert, "keyfile": url.key}
        self._clock = clock
        self._look_at = 0.0
        self._signature: object = None
        self._making = asyncio.Lock()
        self.context: ssl.SSLContext | None = None
        """None before `get_ready`."""

    def share(self, client: Any, sentinel: Sentinel | None) -> None:
        """Have all connections of a client, and of the Sentinels that it asks, use the context."""
        kind = _sharing(self, SSLConnection)
        if isinstance(client, RedisCluster):
            client.connection_kwargs["connection_class"] = kind  # of nodes that it finds
            for node in client.nodes_manager.startup_nodes.values():
                node.connection_class = kind
            return
        if sentinel is not None:
            for one in sentinel.sentinels:
                one.connection_pool.connection_class = kind
            kind = _sharing(self, SentinelManagedSSLConnection)
        client.connection_pool.connection_class = kind

    async def get_ready(self) -> None:
        """Make the context, or make it again where its files have changed. Raises `OSError` for
        files that can't be used."""
        if self.context is not None and self._clock() < self._look_at:
            return
        async with self._making:
            if self.context is None or self._clock() >= self._look_at:
                self._look_at = self._clock() + LOOK_AGAIN_S
                await asyncio.to_thread(self._make)

    def _make(self) -> None:
        signature = [_signature(name) for name in self._files.values() if name is not None]
        if self.context is None or signature != self._signature:
            self.context = RedisSSLContext(
                cert_reqs="required",
                check_hostname=True,
                min_version=ssl.TLSVersion.TLSv1_2,
                **self._files,
            ).get()
            self._signature = signature


def _signature(name: str) -> object:
    found = os.stat(name)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _sharing(shared: SharedContext, kind: type[Any]) -> type[Any]:
    """The class of connections that use the shared context."""

    class SharingConnection(kind):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.ssl_context.context = shared.context

    return SharingConnection
