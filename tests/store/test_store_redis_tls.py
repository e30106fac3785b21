"""TLS towards Redis: one context for all connections, made off the event loop."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.cluster import ClusterNode
from support.jose_values import make_certificate
from support.processes.redis import RedisServer, redis_binary
from support.provider import Clock
from support.stores.values import make_client

from gateway.store import open_store
from gateway.store.redis.link import RedisLink
from gateway.store.redis.store import RedisStore
from gateway.store.redis.tls import LOOK_AGAIN_S, SharedContext
from gateway.store_url import RedisUrl, parse_store_url

HAS_TLS = b"tls-ca-cert-dir" in Path(redis_binary()).resolve().read_bytes()


@pytest.fixture
def made_by(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that made a TLS context, one entry for each."""
    makers: list[int] = []
    make = ssl.create_default_context

    def noted(*arguments: Any, **settings: Any) -> ssl.SSLContext:
        makers.append(threading.get_ident())
        return make(*arguments, **settings)

    monkeypatch.setattr(ssl, "create_default_context", noted)
    return makers


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server that speaks TLS."""
    if not HAS_TLS:
        pytest.skip("this redis-server has no TLS: install the system's redis-server")
    made = make_certificate(tmp_path, "localhost", is_ca=True)
    server = RedisServer(
        tmp_path, "--tls-cert-file", str(made.cert), "--tls-key-file", str(made.key),
        "--tls-ca-cert-file", str(made.cert), "--tls-auth-clients", "no",
    ).start()  # fmt: skip
    try:
        yield f"rediss://localhost:{server.start_tls()}?ca={made.cert}"
    finally:
        server.stop()


async def test_many_connections_share_one_context_which_a_thread_makes(
    url: str, made_by: list[int]
) -> None:
    store = await open_store(url)
    assert isinstance(store, RedisStore)
    try:
        await store.clients.add_client(make_client())
        await asyncio.gather(*(store.clients.get_client("shop") for _ in range(20)))
        assert len(made_by) == 1
        assert threading.get_ident() not in made_by
    finally:
        await store.close()


async def test_sentinels_and_the_server_that_they_name_share_the_context(
    made_by: list[int],
) -> None:
    where = parse_store_url("rediss+sentinel://a:1,b:2/gateway")
    assert isinstance(where, RedisUrl)
    link = RedisLink(where)
    assert link._tls is not None
    await link._tls.get_ready()
    assert link._sentinel is not None
    for client in (link._connection, *link._sentinel.sentinels):
        connection = client.connection_pool.make_connection()
        assert connection.ssl_context.get() is link._tls.context
    assert len(made_by) == 1
    await link.close()


async def test_nodes_of_a_cluster_share_the_context(made_by: list[int]) -> None:
    where = parse_store_url("rediss+cluster://127.0.0.1:1,127.0.0.1:2")
    assert isinstance(where, RedisUrl)
    link = RedisLink(where)
    assert link._tls is not None
    await link._tls.get_ready()
    found = ClusterNode("127.0.0.1", 3, **link._connection.connection_kwargs)
    for node in (*link._connection.nodes_manager.startup_nodes.values(), found):
        connection = node.connection_class(**node.connection_kwargs)
        assert connection.ssl_context.get() is link._tls.context
    assert len(made_by) == 1
    await link.close()


async def test_context_is_renewed_where_its_files_were_replaced(
    made_by: list[int], tmp_path: Path
) -> None:
    made = make_certificate(tmp_path, "one", is_ca=True)
    where = parse_store_url(f"rediss://localhost?ca={made.cert}")
    assert isinstance(where, RedisUrl)
    clock = Clock()
    shared = SharedContext(where, clock=clock)
    await asyncio.gather(*(shared.get_ready() for _ in range(5)))
    first = shared.context
    clock.now += LOOK_AGAIN_S + 1
    await shared.get_ready()
    assert shared.context is first, "nothing has changed"
    os.replace(make_certificate(tmp_path, "two", is_ca=True).cert, made.cert)
    await shared.get_ready()
    assert shared.context is first, "it was looked at a moment ago"
    clock.now += LOOK_AGAIN_S + 1
    await shared.get_ready()
    assert shared.context is not first
    assert len(made_by) == 2
