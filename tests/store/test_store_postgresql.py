"""PostgreSQL as a store, and what can become of a server while a gateway uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from support.deadlines import until, within
from support.processes.postgresql import PASSWORD, PostgresServer
from support.stores.postgresql import (
    can_write,
    has_token,
    is_up,
    make_store,
    parse_postgres,
    shop_with_token,
)
from support.stores.values import make_client, make_token

from gateway.oauth.models import (
    Change,
    ClientChange,
    ClientGoneError,
    StoreDataError,
    StoreRejectedError,
    StoreUnavailableError,
    TokenChange,
    digest_token,
)
from gateway.store import open_store
from gateway.store.breaker import FAILURES
from gateway.store.link import Connection
from gateway.store.postgresql import link
from gateway.store.postgresql.link import PostgresLink
from gateway.store.postgresql.migrations import MIGRATIONS
from gateway.store.postgresql.store import PostgresStore
from gateway.store_url import parse_store_url


@pytest.fixture
async def store(empty_postgresql: PostgresServer) -> AsyncIterator[PostgresStore]:
    opened = make_store(empty_postgresql.url)
    yield opened
    await opened.close()


async def test_processes_that_start_together_make_the_schema_once(
    empty_postgresql: PostgresServer,
) -> None:
    stores = [make_store(empty_postgresql.url) for _ in range(8)]
    await asyncio.gather(*(store.ping() for store in stores))
    for store in stores:
        await store.close()
    version = empty_postgresql.sql("SELECT version FROM gateway.schema_version")
    assert version == str(len(MIGRATIONS))


async def test_schema_of_a_later_version_is_left_alone(
    store: PostgresStore, empty_postgresql: PostgresServer
) -> None:
    await store.ping()
    empty_postgresql.sql("UPDATE gateway.schema_version SET version = 99")
    older = make_store(empty_postgresql.url)
    with pytest.raises(StoreRejectedError, match="schema version 99"):
        await older.ping()
    await older.close()


async def test_store_that_does_not_respond_is_unavailable_in_time_and_back_afterwards(
    own_postgresql: PostgresServer,
) -> None:
    store = make_store(own_postgresql.url, timeout_s=1.0, failures=3)
    await shop_with_token(store)
    own_postgresql.pause()
    async with within():
        for _ in range(20):
            with pytest.raises(StoreUnavailableError):
                await store.tokens.get_token(digest_token("token"))
    own_postgresql.resume()
    await until(lambda: has_token(store))
    await store.close()


async def test_calls_that_wait_for_the_first_connection_fail_together(
    own_postgresql: PostgresServer,
) -> None:
    store = make_store(own_postgresql.url, timeout_s=1.0)
    own_postgresql.pause()
    async with within():
        found = await asyncio.gather(*(store.ping() for _ in range(200)), return_exceptions=True)
    assert all(isinstance(one, StoreUnavailableError) for one in found)
    own_postgresql.resume()
    await until(lambda: is_up(store))
    await store.close()


async def test_call_does_not_wait_for_a_server_that_hangs_when_asked_for_its_schema(
    empty_postgresql: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections are made, and nothing more: no call waits as long as a migration may take."""
    monkeypatch.setattr(link, "MIGRATION_TIMEOUT_S", 3600.0)
    first = make_store(empty_postgresql.url)
    await first.ping()
    await first.close()
    url = parse_postgres(empty_postgresql.url)
    (host, port), *_ = url.hosts
    holder = await asyncpg.connect(
        host=host, port=port, user=url.username, password=url.password, database=url.database
    )
    store = make_store(empty_postgresql.url, timeout_s=1.0)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE gateway.schema_version IN ACCESS EXCLUSIVE MODE")
            async with within():
                with pytest.raises(StoreUnavailableError):
                    await store.ping()
        await until(lambda: is_up(store))
    finally:
        await store.close()
        await holder.close()


async def test_committed_revocation_survives_a_killed_server(
    own_postgresql: PostgresServer,
) -> None:
    store = make_store(own_postgresql.url)
    await shop_with_token(store)
    assert await store.tokens.revoke_token(digest_token("token"))
    own_postgresql.kill()
    with pytest.raises(StoreUnavailableError):
        await store.tokens.get_token(digest_token("token"))
    own_postgresql.start()
    await until(lambda: is_up(store))
    assert await store.tokens.get_token(digest_token("token")) is None
    assert await store.clients.get_client("shop") == make_client()
    await store.close()


async def test_connections_that_the_server_ends_are_replaced(
    store: PostgresStore, empty_postgresql: PostgresServer
) -> None:
    await shop_with_token(store)
    await asyncio.gather(*(has_token(store) for _ in range(10)))
    end_connections(empty_postgresql)
    await until(lambda: has_token(store))


async def test_connection_that_ends_within_a_transaction_is_one_that_is_lost(
    empty_postgresql: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    opened = PostgresLink(parse_postgres(empty_postgresql.url))

    async def lose(db: Connection) -> None:
        async with db.transaction():
            end_connections(empty_postgresql)
            await db.execute("SELECT 1")

    with pytest.raises(StoreUnavailableError, match=r"\((08|57)"):
        await opened.run(lose)
    await opened.close()
    assert "unexpectedly" not in caplog.text


def end_connections(own_postgresql: PostgresServer) -> None:
    """End those of gateways."""
    own_postgresql.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'bearer-gateway'"
    )


async def test_standby_is_read_and_rejects_writes(
    store: PostgresStore, empty_postgresql: PostgresServer
) -> None:
    await shop_with_token(store)
    database = "ALTER DATABASE gateway SET default_transaction_read_only"
    empty_postgresql.sql(f"{database} = on", "postgres")
    end_connections(empty_postgresql)
    try:
        await until(lambda: has_token(store))
        with pytest.raises(StoreRejectedError, match="read-only"):
            await store.tokens.add_token(make_token("other"), generation=7)
        assert store.rejects_writes
    finally:
        empty_postgresql.sql(f"{database} = off", "postgres")
    # Without a word from anybody: connections of the time before are given up.
    await until(lambda: can_write(store))
    assert not store.rejects_writes


async def test_calls_wait_for_a_connection_and_fail_in_time(
    empty_postgresql: PostgresServer,
) -> None:
    store = make_store(empty_postgresql.url, max_connections=2)
    await shop_with_token(store)
    assert all(await asyncio.gather(*(has_token(store) for _ in range(50))))
    await store.close()
    store = make_store(empty_postgresql.url, timeout_s=1.0, max_connections=1)
    await store.ping()
    reads = asyncio.create_task(store._calls.value("ping", "SELECT pg_sleep(30)"))
    with pytest.raises(StoreUnavailableError, match="no response in time"):
        await asyncio.gather(reads, store.ping())
    await until(lambda: is_up(store))
    await store.close()


async def test_wrong_password_and_missing_database_are_named_and_the_password_is_not(
    empty_postgresql: PostgresServer,
) -> None:
    for url, reason in (
        (empty_postgresql.url_as("gateway", "wrong-secret"), "password authentication failed"),
        (empty_postgresql.url_as("gateway", PASSWORD, "elsewhere"), '"elsewhere" does not exist'),
        ("postgresql://gateway:wrong-secret@127.0.0.1:1/gateway", "Connection refused"),
    ):
        store = make_store(url)
        with pytest.raises(StoreUnavailableError, match=reason) as error:
            await store.ping()
        assert "wrong-secret" not in str(error.value)
        assert PASSWORD not in repr(parse_store_url(url))
        await store.close()


async def test_damaged_column_is_a_store_that_does_not_respond(
    store: PostgresStore, empty_postgresql: PostgresServer
) -> None:
    await shop_with_token(store)
    empty_postgresql.sql("UPDATE gateway.tokens SET claims = '{'")
    with pytest.raises(StoreDataError):
        await store.tokens.get_token(digest_token("token"))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
async def test_text_that_it_can_not_hold_is_not_there(store: PostgresStore, text: str) -> None:
    assert await store.clients.get_client(text) is None
    assert await store.records.get_record("code", text) is None
    assert await store.records.take_record("code", text) is None
    assert await store.records.list_records("code", after=text) == []
    assert await store.records.list_records("code", owner=text) == []
    assert await store.clients.list_clients(after=text) == []
    assert await store.usage.search_clients(text) == []
    assert await store.usage.count_tokens(text) == 0
    assert await store.usage.client_usage([text]) == {}
    for _ in range(FAILURES):  # none of the server: it is not left alone
        with pytest.raises(StoreRejectedError, match="can't hold"):
            await store.clients.add_client(make_client(text))
    assert await store.clients.list_clients() == []
    assert not store.rejects_writes


async def test_changes_are_seen_in_the_order_of_their_numbers(
    store: PostgresStore, empty_postgresql: PostgresServer
) -> None:
    """A transaction that has taken a number and is not committed must not be passed over."""
    await store.clients.add_client(make_client())
    cursor, _ = await store.changes_since(None)
    others = [make_store(empty_postgresql.url) for _ in range(4)]
    seen: list[Change] = []
    done = asyncio.Event()

    async def read() -> None:
        position = cursor
        while True:
            is_last = done.is_set()
            position, changes = await store.changes_since(position)
            seen.extend(changes or ())
            if is_last:
                return

    reader = asyncio.create_task(read())
    for name in range(25):
        await store.clients.add_client(make_client(f"c{name}"))
    await asyncio.gather(
        *(others[name % 4].tokens.revoke_client_tokens(f"c{name}") for name in range(25))
    )
    done.set()
    await reader
    assert sorted(one.client_id for one in seen if isinstance(one, ClientChange)) == sorted(
        f"c{name}" for name in range(25)
    )
    for other in others:
        await other.close()


async def test_changes_are_announced_and_a_lost_connection_is_a_gap(
    store: PostgresStore, empty_postgresql: PostgresServer
) -> None:
    other = make_store(empty_postgresql.url)
    await shop_with_token(store)
    cursor, _ = await store.changes_since(None)
    announced, gaps = [0], [0]

    def count(what: list[int]) -> None:
        what[0] += 1

    watching = asyncio.create_task(
        other.watch_changes(on_change=lambda: count(announced), on_gap=lambda: count(gaps))
    )
    await until(lambda: is_listening(empty_postgresql))
    assert await store.tokens.revoke_token(digest_token("token"))
    await until(lambda: announced[0] == 1)
    _, changes = await other.changes_since(cursor)
    assert changes == [TokenChange(digest_token("token"))]
    end_connections(empty_postgresql)
    await until(lambda: gaps[0] == 1)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    await other.close()


def is_listening(server: PostgresServer) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    return server.sql(query) != "0"


async def test_cursor_of_a_replaced_database_asks_for_everything(store: PostgresStore) -> None:
    await shop_with_token(store)
    cursor, changes = await store.changes_since(None)
    assert (cursor, changes) == (0, [])
    assert await store.changes_since(77) == (0, None)
    await store.tokens.revoke_client_tokens("shop")
    newest, changes = await store.changes_since(cursor)
    assert changes == [ClientChange("shop")]
    assert await store.changes_since(newest + 100) == (newest, None)


async def test_purge_is_done_by_one_replica(
    store: PostgresStore, empty_postgresql: PostgresServer
) -> None:
    await shop_with_token(store)
    holder = PostgresLink(parse_postgres(empty_postgresql.url))

    async def hold(connection: object) -> tuple[int, int, int]:
        async with connection.transaction():  # type: ignore[attr-defined]
            await connection.fetchval("SELECT pg_advisory_xact_lock(1111970905)")  # type: ignore[attr-defined]
            purged = await store.purge(tokens_before=9e9, clients_before=9e9)
            return purged.tokens, purged.clients, purged.records

    assert await holder.run(hold) == (0, 0, 0)
    await holder.close()
    purged = await store.purge(tokens_before=9e9, clients_before=9e9)
    assert (purged.tokens, purged.clients) == (1, 1)


async def test_behind_pgbouncer_nothing_stays_on_a_connection(
    empty_postgresql: PostgresServer,
) -> None:
    store = make_store(f"{empty_postgresql.url}?pgbouncer=true")
    await shop_with_token(store)
    assert await has_token(store)
    with pytest.raises(ClientGoneError):
        await store.tokens.add_token(make_token("other"), generation=6)
    await store.watch_changes(on_change=lambda: None, on_gap=lambda: None)  # returns at once
    await store.close()
    store = make_store(f"{empty_postgresql.url}?pgbouncer=true")
    statements = await store._calls.value("ping", "SELECT count(*) FROM pg_prepared_statements")
    assert statements == 0
    await store.close()


async def test_hazards_are_named(store: PostgresStore) -> None:
    assert any("fsync = off" in hazard for hazard in await store.find_hazards())


async def test_open_store_needs_readable_tls_files(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No such file"):
        await open_store(f"postgresql://h/d?sslmode=verify-full&sslrootcert={tmp_path}/missing.pem")
