"""Stores on PostgreSQL, and what tests look at again and again while a server comes and goes."""

from __future__ import annotations

from support.provider import Clock
from support.stores.values import make_client, make_record, make_token

from gateway.oauth.models import StoreUnavailableError, digest_token
from gateway.store.breaker import StoreBreaker
from gateway.store.postgresql.calls import PostgresCalls
from gateway.store.postgresql.link import PostgresLink
from gateway.store.postgresql.store import PostgresStore
from gateway.store_url import PostgresUrl, parse_store_url


def make_store(
    url: str, *, timeout_s: float = 20.0, max_connections: int = 20, failures: int = 10**9
) -> PostgresStore:
    """A store that has not connected yet; by default without hurry, and never left alone."""
    link = PostgresLink(
        parse_postgres(url),
        timeout_s=timeout_s,
        max_connections=max_connections,
        breaker=StoreBreaker(failures=failures),
    )
    return PostgresStore(PostgresCalls(link, wall_clock=Clock()))


def parse_postgres(url: str) -> PostgresUrl:
    """The URL of a PostgreSQL store."""
    where = parse_store_url(url)
    assert isinstance(where, PostgresUrl)
    return where


async def shop_with_token(store: PostgresStore) -> None:
    """Add a client and a token of it."""
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(), generation=7)


async def has_token(store: PostgresStore, token: str = "token") -> bool:
    """Whether the token is there; False where the store is not."""
    try:
        return await store.tokens.get_token(digest_token(token)) is not None
    except StoreUnavailableError:
        return False


async def is_up(store: PostgresStore) -> bool:
    """Whether the store responds."""
    try:
        await store.ping()
    except StoreUnavailableError:
        return False
    return True


async def can_write(store: PostgresStore) -> bool:
    """Whether the store takes a record."""
    try:
        await store.records.put_record(make_record())
    except StoreUnavailableError:
        return False
    return True
