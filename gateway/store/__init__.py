"""The persistent stores behind the protocols of `gateway.oauth.models`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.oauth.models import Change, StoreError
from gateway.store import link
from gateway.store.health import StoreHealth
from gateway.store.operations import Reports
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.store import SqliteStore
from gateway.store_url import (
    NoStoreUrl,
    PostgresUrl,
    RedisUrl,
    SqliteUrl,
    StoreUrl,
    parse_store_url,
)

if TYPE_CHECKING:
    # Imported where they are used: the client libraries are large, and with SQLite no process
    # needs them, least of all a worker that is started in a hurry.
    from gateway.store.postgresql.rate_limit import PostgresRateLimits
    from gateway.store.postgresql.store import PostgresStore
    from gateway.store.redis.rate_limit import RedisRateLimits
    from gateway.store.redis.store import RedisStore

HOW_TO_INSTALL_POSTGRES = "pip install 'asyncpg>=0.30'"

NO_STORE = "there is none (`store: none`), so there are no clients, tokens and accounts"

__all__ = [
    "HOW_TO_INSTALL_POSTGRES",
    "NO_STORE",
    "StoreHealth",
    "check_store",
    "open_rate_limits",
    "open_store",
]


async def open_store(
    url: str,
    *,
    observe: Callable[[str, float], None] = lambda operation, seconds: None,
    health: StoreHealth | None = None,
    on_change: Callable[[Change], None] = lambda change: None,
    must_exist: bool = False,
) -> SqliteStore | RedisStore | PostgresStore:
    """Open the store at a URL, see `gateway.store_url`.

    `observe` receives each operation and its seconds, `health` its outcome, and `on_change`
    what was revoked through this very store, before the caller who asked for it learns that it
    was done. A file that is not there is made, unless it `must_exist`.

    Raises `StoreError` where the store can't be opened; a server that does not respond is met by
    the first operation.
    """
    where = _parse(url)
    reports = Reports(observe=observe, health=health, on_change=on_change)
    if isinstance(where, SqliteUrl):
        return SqliteStore(SqliteFile(Path(where.path), must_exist=must_exist, **reports))
    if isinstance(where, PostgresUrl):
        return _open_postgres(where, reports)
    if isinstance(where, NoStoreUrl):
        raise StoreError(NO_STORE)
    from gateway.store.redis.calls import RedisCalls
    from gateway.store.redis.link import RedisLink
    from gateway.store.redis.store import RedisStore

    return RedisStore(RedisCalls(RedisLink(where), **reports))


def _open_postgres(url: PostgresUrl, reports: Reports) -> PostgresStore:
    with _needs_asyncpg():
        from gateway.store.postgresql.calls import PostgresCalls
        from gateway.store.postgresql.link import PostgresLink
        from gateway.store.postgresql.store import PostgresStore
    return PostgresStore(PostgresCalls(PostgresLink(url), **reports))


def open_rate_limits(url: str) -> RedisRateLimits | PostgresRateLimits | None:
    """The rate limits that the processes at this store share; None for a SQLite file, which shares
    none.

    Raises `StoreError` where the store can't be opened.
    """
    where = _parse(url)
    timeout_s = link.RATE_LIMIT_TIMEOUT_S
    # Connections of their own: a flood of requests must not keep tokens from being looked up.
    if isinstance(where, RedisUrl):
        from gateway.store.redis.link import RedisLink
        from gateway.store.redis.rate_limit import RedisRateLimits

        return RedisRateLimits(RedisLink(where, timeout_s=timeout_s))
    if isinstance(where, PostgresUrl):
        with _needs_asyncpg():
            from gateway.store.postgresql.link import PostgresLink
            from gateway.store.postgresql.rate_limit import MAX_CONNECTIONS, PostgresRateLimits
        postgres = PostgresLink(where, timeout_s=timeout_s, max_connections=MAX_CONNECTIONS)
        return PostgresRateLimits(postgres)
    return None


async def check_store(url: str) -> None:
    """Look whether a store responds, and change nothing in a server. Raises `StoreError`."""
    where = _parse(url)
    if isinstance(where, PostgresUrl):
        with _needs_asyncpg():
            from gateway.store.postgresql.link import PostgresLink
        await PostgresLink(where).check()
        return
    store = await open_store(url, must_exist=True)
    try:
        await store.ping()
    finally:
        await store.close()


@contextlib.contextmanager
def _needs_asyncpg() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise StoreError(f"PostgreSQL needs a package: {HOW_TO_INSTALL_POSTGRES}") from None


def _parse(url: str) -> StoreUrl:
    try:
        return parse_store_url(url)
    except ValueError as error:
        raise StoreError(f"the store's URL: {error}") from None
