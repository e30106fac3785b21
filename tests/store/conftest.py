"""Each kind of store, for the suites that hold for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.processes.postgresql import PostgresServer
from support.processes.redis import RedisCluster, RedisServer
from support.provider import Clock
from support.tiers import slow

from gateway.oauth.models import Store
from gateway.store.postgresql.calls import PostgresCalls
from gateway.store.postgresql.link import PostgresLink
from gateway.store.postgresql.store import PostgresStore
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.link import RedisLink
from gateway.store.redis.store import RedisStore
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.store import SqliteStore
from gateway.store_url import PostgresUrl, RedisUrl, parse_store_url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for tests that don't hurt it; each finds it empty by `empty_redis`."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server for tests that don't hurt it; each finds it empty by `empty_postgresql`."""
    server = PostgresServer(tmp_path_factory.mktemp("postgresql")).create("fsync = off").start()
    yield server
    server.stop()


@pytest.fixture
def empty_postgresql(shared_postgresql: PostgresServer) -> PostgresServer:
    """A server without anything of a gateway."""
    shared_postgresql.empty()
    return shared_postgresql


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


def redis_store(url: str, clock: Clock) -> RedisStore:
    """A store that has not connected yet."""
    where = parse_store_url(url)
    assert isinstance(where, RedisUrl)
    # Without hurry: these tests are about what is answered, not how fast.
    return RedisStore(RedisCalls(RedisLink(where, timeout_s=20.0), wall_clock=clock))


def postgres_store(url: str, clock: Clock) -> PostgresStore:
    """A store that has not connected yet."""
    where = parse_store_url(url)
    assert isinstance(where, PostgresUrl)
    return PostgresStore(PostgresCalls(PostgresLink(where, timeout_s=20.0), wall_clock=clock))


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
