"""Each kind of store, for the suites that hold for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.processes.redis import RedisCluster, RedisServer
from support.provider import Clock
from support.stores.opening import postgres_store, redis_store
from support.tiers import slow

from gateway.oauth.models import Store
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.store import SqliteStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for tests that don't hurt it; each finds it empty by `empty_redis`."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def empty_redis(shared_redis: RedisServer) -> RedisServer:
    """A server without keys."""
    shared_redis.control.flushall()
    return shared_redis


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Three primaries."""
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster")).start()
    yield cluster
    cluster.stop()


@pytest.fixture(
    params=[
        "sqlite",
        "redis",
        "postgresql",
        pytest.param("redis-cluster", marks=slow("Redis Cluster")),
    ]
)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[Store]:
    """Each kind of store, empty."""
    opened: Store
    if request.param == "sqlite":
        opened = SqliteStore(SqliteFile(tmp_path / "store.db", wall_clock=clock))
    elif request.param == "redis":
        opened = redis_store(request.getfixturevalue("empty_redis").url, clock)
    elif request.param == "postgresql":
        opened = postgres_store(request.getfixturevalue("empty_postgresql").url, clock)
    else:
        cluster: RedisCluster = request.getfixturevalue("shared_cluster")
        cluster.flush()
        opened = redis_store(cluster.url, clock)
    yield opened
    await opened.close()
