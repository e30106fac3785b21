"""Stores on servers of the tests, without hurry: tests of what they return, not of how fast."""

from __future__ import annotations

from support.provider import Clock

from gateway.store.postgresql.calls import PostgresCalls
from gateway.store.postgresql.link import PostgresLink
from gateway.store.postgresql.store import PostgresStore
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.link import RedisLink
from gateway.store.redis.store import RedisStore
from gateway.store_url import PostgresUrl, RedisUrl, parse_store_url

TIMEOUT_S = 20.0


def redis_store(url: str, clock: Clock) -> RedisStore:
    """A store that has not connected yet."""
    where = parse_store_url(url)
    assert isinstance(where, RedisUrl)
    # Without hurry: these tests are about what is answered, not how fast.
    return RedisStore(RedisCalls(RedisLink(where, timeout_s=TIMEOUT_S), wall_clock=clock))


def postgres_store(url: str, clock: Clock) -> PostgresStore:
    """A store that has not connected yet."""
    where = parse_store_url(url)
    assert isinstance(where, PostgresUrl)
    return PostgresStore(PostgresCalls(PostgresLink(where, timeout_s=TIMEOUT_S), wall_clock=clock))
