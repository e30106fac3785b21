"""The connections to Redis: one server, what Sentinels watch over, or a Cluster.

Every call has a deadline and goes through a circuit breaker; only so many are under way
at once. Nothing is tried twice here: a write whose response was lost may have happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError

from gateway.oauth.models import StoreError, StoreUnavailableError
from gateway.store.breaker import StoreBreaker
from gateway.store.link import TIMEOUT_S, Connection, StoreLink
from gateway.store.redis.errors import as_store_error, is_foreseen, read_code
from gateway.store.redis.scripts import Script
from gateway.store.redis.tls import SharedContext
from gateway.store_url import RedisUrl

Result = TypeVar("Result")

MAX_CALLS = 128


class RedisLink(StoreLink):
    """Redis as everything above sees it: calls that complete in time, or fail."""

    server = "Redis"

    def __init__(
        self,
        url: RedisUrl,
        *,
        timeout_s: float = TIMEOUT_S,
        max_calls: int = MAX_CALLS,
        breaker: StoreBreaker | None = None,
    ) -> None:
        """Raises `StoreError` for TLS files that can't be read. Connects later, when asked."""
        super().__init__((url.ca, url.cert, url.key), timeout_s, breaker)
        self.url = url
        self.is_cluster = url.topology == "cluster"
        self._max_calls = max_calls
        self._calls = asyncio.Semaphore(max_calls)
        self._discovering = asyncio.Lock()
        self._sentinel: Sentinel | None = None
        self._tls = SharedContext(url) if url.is_tls else None
        try:
            self._connection = self._connect(url)
            if self._tls is not None:
                self._tls.share(self._connection, self._sentinel)
        except Exception as error:
            failure = as_store_error(error)
            raise failure or StoreError(f"{url}: {type(error).__name__}") from None

    def _connect(self, url: RedisUrl) -> Connection:
        settings: dict[str, Any] = {
            "socket_timeout": self.timeout_s,
            "socket_connect_timeout": self.timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "max_connections": self._max_calls + 10,  # news come by others, one at a time
            "username": url.username,
            "password": url.password,
        }
        tls: dict[str, Any] = {}
        if url.is_tls:
            tls = {
                "ssl": True,
                "ssl_ca_certs": url.ca,
                "ssl_certfile": url.cert,
                "ssl_keyfile": url.key,
                "ssl_min_version": ssl.TLSVersion.TLSv1_2,
            }
        if url.topology == "cluster":
            nodes = [ClusterNode(host, port) for host, port in url.hosts]
            # Slots that move are learnt one by one: to learn all of them again, redis-py would
            # close the connections under the calls of others.
            return RedisCluster(startup_nodes=nodes, reinitialize_steps=0, **settings, **tls)
        if url.topology == "sentinel":
            self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
                url.hosts,
                sentinel_kwargs={
                    **settings,
                    **tls,
                    # One that is gone must leave time for the others to be asked.
                    "socket_timeout": self.timeout_s / 3,
                    "socket_connect_timeout": self.timeout_s / 3,
                    "username": url.sentinel_username,
                    "password": url.sentinel_password,
                },
                db=url.database,
                **settings,
                **tls,
            )
            return self._sentinel.master_for(url.service)
        host, port = url.hosts[0]
        return Redis(host=host, port=port, db=url.database, **settings, **tls)

    async def run(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        cancellations = count_cancellations()
        try:
            return await super().run(work)
        finally:
            heed_cancellation(cancellations)

    async def _call(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        async with asyncio.timeout(self.timeout_s), self._calls:
            return await work(await self._discover())

    def _explain(self, error: Exception) -> StoreUnavailableError | None:
        return as_store_error(error)

    def _is_response(self, error: Exception) -> bool:
        return isinstance(error, ResponseError)

    def _is_foreseen(self, error: Exception) -> bool:
        return is_foreseen(error)

    async def _give_up_connections(self, error: Exception) -> None:
        is_replica = isinstance(error, ResponseError) and read_code(error) == "READONLY"
        if is_replica and not self.is_cluster:
            # It was the primary once; its name may lead to another server by now.
            await self.disconnect_idle()

    async def disconnect_idle(self) -> None:
        """Close the connections that no call uses."""
        with contextlib.suppress(Exception):
            await self._connection.connection_pool.disconnect(inuse_connections=False)

    async def get_ready(self) -> Connection:
        """The client, for what is not a single call. Raises `StoreUnavailableError`."""

        async def nothing(connection: Connection) -> Connection:
            return connection

        return await self.run(nothing)

    async def _discover(self) -> Connection:
        if self._tls is not None:
            await self._tls.get_ready()
        if self.is_cluster:
            # The client can't be used while it finds out who the nodes are.
            async with self._discovering:
                await self._connection.initialize()
        return self._connection

    async def close(self) -> None:
        """Close every connection. Raises nothing: what can't be closed is lost already."""
        self.is_closed = True
        clients = [self._connection]
        if self.is_cluster:
            # A cluster client that has lost a node believes that it has nothing to close.
            known = self._connection.nodes_manager
            for node in [*known.nodes_cache.values(), *known.startup_nodes.values()]:
                with contextlib.suppress(Exception):
                    await node.disconnect()
        if self._sentinel is not None:
            clients += self._sentinel.sentinels
        for client in clients:
            with contextlib.suppress(Exception):
                await client.aclose()


def count_cancellations() -> int:
    """How often the running task was asked to end."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def heed_cancellation(already: int = 0) -> None:
    """Raises `asyncio.CancelledError` where the task was asked to end since there were `already`
    such requests. redis-py may lose one: by raising the error of a lost connection in its
    place, and by `asyncio.wait_for`, which before Python 3.12 prefers a result. A loop that
    goes on would never end."""
    if count_cancellations() > already:
        raise asyncio.CancelledError


async def call_script(redis: Connection, script: Script, keys: list[str], *arguments: Any) -> Any:
    """Run a script, which the server knows by its digest once it has seen it."""
    try:
        return await redis.evalsha(script.sha1, len(keys), *keys, *arguments)
    except NoScriptError:
        return await redis.eval(script.text, len(keys), *keys, *arguments)
