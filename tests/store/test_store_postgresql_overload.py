"""A PostgreSQL that is slow for a moment: what a gateway opens and gives up then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psutil
import pytest
from support.deadlines import settled, until
from support.processes.postgresql import PostgresServer
from support.stores.postgresql import has_token, make_store, parse_postgres, shop_with_token

from gateway.oauth.models import StoreUnavailableError
from gateway.store.breaker import StoreBreaker
from gateway.store.link import Connection
from gateway.store.postgresql.link import MAX_OPENING, PostgresLink


async def test_only_a_few_connections_are_opened_at_once(own_postgresql: PostgresServer) -> None:
    store = make_store(own_postgresql.url)
    try:
        await shop_with_token(store)
        own_postgresql.pause()
        calls = [asyncio.create_task(has_token(store)) for _ in range(20)]
        await until(lambda: connections_to(own_postgresql) > 1)
        assert await settled(lambda: connections_to(own_postgresql)) == 1 + MAX_OPENING
        own_postgresql.resume()
        assert all(await asyncio.gather(*calls))
    finally:
        await store.close()


def connections_to(server: PostgresServer) -> int:
    found = psutil.Process().net_connections(kind="tcp")
    return sum(1 for one in found if one.raddr and one.raddr.port == server.port)


@pytest.fixture
async def link(empty_postgresql: PostgresServer) -> AsyncIterator[PostgresLink]:
    """One that is left alone after the first failure."""
    opened = PostgresLink(
        parse_postgres(empty_postgresql.url), timeout_s=20.0, breaker=StoreBreaker(failures=1)
    )
    yield opened
    await opened.close()


async def test_call_that_fails_late_costs_no_connection_that_was_opened_since(
    link: PostgresLink,
) -> None:
    may_fail = asyncio.Event()
    older = asyncio.create_task(link.run(lambda db: fail_after(may_fail)))
    assert await find_backend(link)
    with pytest.raises(StoreUnavailableError):
        await link.run(lambda db: fail_after(None))
    await until(lambda: not link.is_resting)

    async def recover(db: Connection) -> object:
        may_fail.set()
        with pytest.raises(StoreUnavailableError):
            await older
        return await db.fetchval("SELECT pg_backend_pid()")

    recovered = await link.run(recover)
    assert await find_backend(link) == recovered


async def fail_after(event: asyncio.Event | None) -> None:
    if event is not None:
        await event.wait()
    raise TimeoutError


async def find_backend(link: PostgresLink) -> object:
    """The process of the server that serves the next call."""
    return await link.run(lambda db: db.fetchval("SELECT pg_backend_pid()"))
