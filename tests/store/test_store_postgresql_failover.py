"""A real standby takes over, a PgBouncer stands between, and the disk is full."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from aiohttp import ClientResponse
from support.deadlines import until, wait_until, within
from support.processes.postgresql import PASSWORD, PgBouncer, PostgresServer
from support.running_gateway import RunningGateway, StartGateway, basic
from support.servers.raw_upstream import RawUpstream
from support.stores.postgresql import (
    can_write,
    has_token,
    is_up,
    make_store,
    shop_with_token,
)
from support.stores.values import make_client, make_token
from support.tiers import slow

from gateway.oauth.models import StoreRejectedError, StoreUnavailableError, digest_token
from gateway.store.postgresql.store import PostgresStore

pytestmark = slow("PostgreSQL")


@dataclass
class Pair:
    """A primary, and the standby that has to have what the primary acknowledges."""

    primary: PostgresServer
    standby: PostgresServer

    @property
    def url(self) -> str:
        """Of both."""
        places = ",".join(f"127.0.0.1:{one.port}" for one in (self.primary, self.standby))
        return f"postgresql://gateway:{PASSWORD}@{places}/gateway"


@pytest.fixture
def pair(
    own_postgresql: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    standby = PostgresServer(tmp_path_factory.mktemp("standby")).copy(own_postgresql).start()
    own_postgresql.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    own_postgresql.sql("SELECT pg_reload_conf()")
    state = "SELECT sync_state FROM pg_stat_replication"
    wait_until(lambda: own_postgresql.sql(state) == "sync")
    yield Pair(own_postgresql, standby)
    standby.stop()


async def test_committed_revocations_survive_the_failover_to_a_synchronous_standby(
    pair: Pair,
) -> None:
    store = make_store(pair.url)
    await shop_with_token(store)
    for name in ("kept", *(f"t{number}" for number in range(20))):
        await store.tokens.add_token(make_token(name), generation=7)
    for number in range(20):
        assert await store.tokens.revoke_token(digest_token(f"t{number}"))
    pair.primary.kill()
    with pytest.raises(StoreUnavailableError):
        await store.ping()  # on a connection of the time before
    with pytest.raises(StoreUnavailableError, match="a standby, which takes no writes"):
        await store.ping()
    pair.standby.promote()
    await until(lambda: can_write(store))
    assert await has_token(store, "kept")
    for number in range(20):
        assert await store.tokens.get_token(digest_token(f"t{number}")) is None
    await store.close()


async def test_primary_that_is_gone_without_a_word_leaves_time_for_the_other_host(
    pair: Pair,
) -> None:
    """As where its host has lost power: connections stay open, and nothing comes."""
    store = make_store(pair.url, timeout_s=2.0, failures=3)
    await shop_with_token(store)
    # Many connections, each of which would keep a call waiting.
    assert all(await asyncio.gather(*(has_token(store) for _ in range(20))))
    pair.primary.pause()
    pair.standby.promote()
    await until(lambda: can_write(store))
    assert await has_token(store)
    late = make_store(pair.url, timeout_s=2.0)
    await until(lambda: is_up(late))
    for one in (store, late):
        await one.close()


async def test_change_that_a_dead_standby_holds_up_is_announced_and_unavailable(
    pair: Pair,
) -> None:
    store = make_store(pair.url, timeout_s=2.0)
    await shop_with_token(store)
    cursor, _ = await store.changes_since(None)
    pair.standby.kill()
    with pytest.raises(StoreUnavailableError):
        await store.tokens.revoke_token(digest_token("token"))
    # What was asked for stands here: it was not acknowledged, because it may be lost.
    pair.primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
    pair.primary.sql("SELECT pg_reload_conf()")
    await until(lambda: is_up(store))
    assert await store.tokens.get_token(digest_token("token")) is None
    _, changes = await store.changes_since(cursor)
    assert changes
    await store.close()


async def test_standby_alone_is_read_and_rejects_writes(pair: Pair) -> None:
    store = make_store(pair.url)
    await shop_with_token(store)
    reader = make_store(pair.standby.url)
    await until(lambda: has_token(reader))
    for write in (
        reader.tokens.add_token(make_token("other"), generation=7),
        reader.tokens.revoke_token(digest_token("token")),
        reader.clients.delete_client("shop"),
    ):
        with pytest.raises(StoreRejectedError, match="read-only"):
            await write
    assert reader.rejects_writes
    assert any("standby" in hazard for hazard in await reader.find_hazards())
    for one in (store, reader):
        await one.close()


@pytest.fixture
def bouncer(
    own_postgresql: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PgBouncer]:
    running = PgBouncer(tmp_path_factory.mktemp("pgbouncer"), own_postgresql).start()
    yield running
    running.stop()


async def test_pgbouncer_in_transaction_mode_serves_processes_with_few_connections(
    own_postgresql: PostgresServer, bouncer: PgBouncer
) -> None:
    """Its two connections change hands with each transaction."""
    stores = [make_store(bouncer.url) for _ in range(4)]
    await asyncio.gather(*(store.ping() for store in stores))
    await shop_with_token(stores[0])

    async def work(number: int) -> None:
        store = stores[number % len(stores)]
        await store.tokens.add_token(make_token(f"t{number}"), generation=7)
        assert await has_token(stores[(number + 1) % len(stores)], f"t{number}")
        if number % 2:
            assert await store.tokens.revoke_token(digest_token(f"t{number}"))
        else:
            await store.clients.add_client(make_client(f"c{number}"))

    await asyncio.gather(*(work(number) for number in range(100)))
    for number in range(100):
        assert await has_token(stores[0], f"t{number}") == (number % 2 == 0)
    _, changes = await stores[1].changes_since(0)
    assert changes is None or len(changes) >= 50
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'gateway'"
    assert int(own_postgresql.sql(query)) <= bouncer.POOL + 1
    for store in stores:
        await store.close()


async def test_pgbouncer_without_its_server_is_unavailable_and_back_with_it(
    own_postgresql: PostgresServer, bouncer: PgBouncer
) -> None:
    store = make_store(bouncer.url)
    await shop_with_token(store)
    own_postgresql.kill()
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    own_postgresql.start()
    await until(lambda: has_token(store))
    await store.close()


async def test_full_disk_is_503_for_what_needs_room_and_serves_the_rest(
    own_postgresql: PostgresServer, start: StartGateway, upstream: RawUpstream
) -> None:
    # Half a page more than whole pages: of the last one, a part is written.
    own_postgresql.limit_files(1024 * 1024 + 4096)
    gateway = await start(upstream.url, store=own_postgresql.url)
    token = await gateway.token()
    store = make_store(own_postgresql.url)
    with pytest.raises(StoreRejectedError, match="53100"):
        await fill_table(store)
    response = await until_status(gateway, 503)
    assert "Retry-After" in response.headers
    assert (await response.json())["error"] == "temporarily_unavailable"
    assert await store.tokens.get_token(digest_token(token)) is not None
    assert await store.tokens.revoke_token(digest_token(token)), "which needs no room there"
    own_postgresql.limit_files(resource.RLIM_INFINITY)
    await until_status(gateway, 200)
    await store.close()


async def fill_table(store: PostgresStore) -> None:
    """Add tokens until there is an error."""
    await store.clients.add_client(make_client())
    for batch in range(100):
        names = [f"{batch}-{number}" for number in range(500)]
        await store.content.import_tokens([make_token(name) for name in names])


async def until_status(gateway: RunningGateway, status: int) -> ClientResponse:
    """Ask for tokens until the response has a status."""
    async with within():
        while True:
            response = await gateway.session.post(
                gateway.url("/token"),
                data={"grant_type": "client_credentials"},
                headers=basic("tester", "secret"),
            )
            if response.status == status:
                return response
            response.release()
