"""What is particular to the Redis store: keys, scripts, credentials, TLS."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from support.deadlines import scaled, until
from support.jose_values import make_certificate
from support.processes.redis import RedisServer, redis_binary, with_each_redis
from support.provider import Clock
from support.servers.fault_proxy import FaultProxy
from support.stores.values import make_client, make_record, make_token

from gateway.oauth.models import (
    Record,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    TokenChange,
    digest_token,
)
from gateway.rate_limit import Demand, RateLimit
from gateway.store import StoreHealth, open_rate_limits, open_store
from gateway.store.redis.calls import RedisCalls
from gateway.store.redis.link import RedisLink
from gateway.store.redis.scripts import MARK_TOKEN
from gateway.store.redis.store import RedisStore
from gateway.store_url import RedisUrl, parse_store_url


@asynccontextmanager
async def opened(
    url: str, clock: Clock | None = None, *, timeout_s: float = 10.0
) -> AsyncIterator[RedisStore]:
    """A store at a URL."""
    where = parse_store_url(url)
    assert isinstance(where, RedisUrl)
    store = RedisStore(
        RedisCalls(RedisLink(where, timeout_s=timeout_s), wall_clock=clock or Clock())
    )
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def redis(empty_redis: RedisServer, clock: Clock) -> AsyncIterator[RedisStore]:
    """A store on an empty server."""
    async with opened(empty_redis.url, clock) as store:
        yield store


async def test_everything_that_ends_ends_by_itself(
    redis: RedisStore, empty_redis: RedisServer, clock: Clock
) -> None:
    await redis.clients.add_client(make_client())
    await redis.tokens.add_token(make_token(ends=clock.now + 60), generation=7)
    await redis.records.add_record(make_record(ends=clock.now + 60))
    control = empty_redis.control
    lasting = {
        key for key in empty_redis.all_keys() if not 60_000 <= int(control.pttl(key)) <= 121_000
    }
    assert lasting == {
        b"{gateway}:client:shop", b"{gateway}:clients", b"{gateway}:ending-clients",
        b"{gateway}:records:code", b"{gateway}:owned:client:shop", b"{gateway}:ending-records",
    }  # fmt: skip
    await redis.clients.delete_client("shop")
    clock.now += 61
    await redis.purge(tokens_before=clock.now, clients_before=0)
    token = f"gateway:token:{make_token().digest.hex()}".encode()
    assert set(empty_redis.all_keys()) == {
        token,  # of no more use, and gone within its minute
        b"{gateway}:changes", b"{gateway}:changes:seq",
    }  # fmt: skip
    assert await redis.tokens.get_token(make_token().digest) is None


async def test_purge_forgets_records_that_redis_has_removed(
    redis: RedisStore, empty_redis: RedisServer, clock: Clock
) -> None:
    for number in range(250):
        await redis.records.put_record(make_record(f"r{number}", ends=clock.now + 60))
    kept = make_record("kept", ends=clock.now + 600)
    await redis.records.put_record(kept)
    for key in empty_redis.control.scan_iter("*record:code:r*"):
        empty_redis.control.delete(key)
    clock.now += 61
    await redis.purge(tokens_before=clock.now, clients_before=0)
    assert empty_redis.control.zrange("{gateway}:records:code", 0, -1) == [b"kept"]
    assert empty_redis.control.zcard("{gateway}:owned:client:shop") == 1
    assert empty_redis.control.zcard("{gateway}:ending-records") == 1
    assert await redis.records.list_records("code") == [kept]


async def test_all_tokens_of_a_client_are_revoked_without_a_look_at_them(
    redis: RedisStore, empty_redis: RedisServer
) -> None:
    await redis.clients.add_client(make_client())
    await asyncio.gather(
        *(redis.tokens.add_token(make_token(f"t{number}"), generation=7) for number in range(500))
    )
    empty_redis.control.config_resetstat()
    assert await redis.tokens.revoke_client_tokens("shop") == 500
    calls = {
        name: stats["calls"] for name, stats in empty_redis.control.info("commandstats").items()
    }
    assert sum(calls.values()) < 20, calls
    assert "cmdstat_scan" not in calls
    assert await redis.tokens.get_token(digest_token("t499")) is None


async def test_redis_holds_neither_token_nor_secret(
    redis: RedisStore, empty_redis: RedisServer
) -> None:
    await redis.clients.add_client(make_client())
    await redis.tokens.add_token(make_token("the-token-itself"), generation=7)
    await redis.tokens.revoke_token(digest_token("the-token-itself"))
    await redis.tokens.add_token(make_token("the-token-itself"), generation=7)
    kept = b"".join(key + (empty_redis.control.dump(key) or b"") for key in empty_redis.all_keys())
    assert b"the-token-itself" not in kept
    assert digest_token("the-token-itself").hex().encode() in kept


async def test_revocation_that_was_cut_off_before_it_was_reported_can_be_tried_again(
    redis: RedisStore, empty_redis: RedisServer
) -> None:
    await redis.clients.add_client(make_client())
    await redis.tokens.add_token(make_token(), generation=7)
    cursor, _ = await redis.changes_since(None)
    name = f"gateway:token:{make_token().digest.hex()}"
    # As far as it gets where the connection is lost after the first step.
    empty_redis.control.eval(MARK_TOKEN.text, 1, name)
    assert await redis.tokens.get_token(make_token().digest) is None
    assert await redis.tokens.revoke_token(make_token().digest) == make_token()
    assert (await redis.changes_since(cursor))[1] == [TokenChange(make_token().digest)]
    assert await redis.tokens.revoke_token(make_token().digest) is None


async def test_two_fleets_can_share_a_server_by_a_prefix(empty_redis: RedisServer) -> None:
    async with (
        opened(f"{empty_redis.url}?prefix=one") as one,
        opened(f"{empty_redis.url}?prefix=two") as two,
        opened(f"{empty_redis.url}/1?prefix=one") as elsewhere,
    ):
        await one.clients.add_client(make_client())
        assert await one.clients.get_client("shop") == make_client()
        for other in (two, elsewhere):
            assert await other.clients.get_client("shop") is None
    assert all(b"one" in key for key in empty_redis.all_keys())


async def test_client_ids_with_braces_keep_their_tokens_apart(redis: RedisStore) -> None:
    for client_id in ("a}b", "{a}", "{}", "%7B"):
        await redis.clients.add_client(make_client(client_id))
        await redis.tokens.add_token(make_token(client_id, client_id), generation=7)
    assert await redis.clients.delete_client("{a}") == 1
    assert await redis.tokens.get_token(digest_token("{a}")) is None
    for client_id in ("a}b", "{}", "%7B"):
        assert await redis.tokens.get_token(digest_token(client_id)) is not None


async def test_too_many_changes_at_once_ask_for_a_sweep(redis: RedisStore) -> None:
    await redis.clients.add_client(make_client())
    cursor, _ = await redis.changes_since(None)
    for _ in range(20):
        await redis.tokens.revoke_client_tokens("shop")
    end, changes = await redis.changes_since(cursor)
    assert changes is not None
    assert len(changes) == 20
    for _ in range(50):  # not all at once: on a busy machine the last would wait too long
        await asyncio.gather(*(redis.tokens.revoke_client_tokens("shop") for _ in range(101)))
    assert (await redis.changes_since(end))[1] is None


async def test_age_of_a_change_is_reported_by_the_clock_of_redis(redis: RedisStore) -> None:
    await redis.clients.add_client(make_client())
    cursor, _ = await redis.changes_since(None)
    await redis.tokens.revoke_client_tokens("shop")
    _, changes = await redis.changes_since(cursor)
    assert changes is not None
    assert 0 <= changes[0].age_s < 60, "the clock of the test says 1970"


async def test_password_and_user_are_shown_to_redis_and_to_no_other_reader(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        server.control.execute_command(  # type: ignore[no-untyped-call]
            "ACL", "SETUSER", "gw", "on", ">p@ss", "~*", "&*", "+@all"
        )
        server.control.execute_command(  # type: ignore[no-untyped-call]
            "ACL", "SETUSER", "weak", "on", ">p@ss", "~*", "&*", "+get", "+hgetall"
        )
        address = f"127.0.0.1:{server.port}"
        async with opened(f"redis://gw:p%40ss@{address}") as store:
            await store.clients.add_client(make_client())
        async with opened(f"redis://gw:geheim@{address}") as store:
            with pytest.raises(StoreUnavailableError) as caught:
                await store.clients.get_client("shop")
            assert "geheim" not in str(caught.value)
        async with opened(f"redis://weak:p%40ss@{address}") as store:
            assert await store.clients.get_client("shop") == make_client()
            with pytest.raises(StoreUnavailableError, match="NOPERM"):
                await store.clients.delete_client("shop")
            assert await store.clients.get_client("shop") == make_client(), "reads go on"
    finally:
        server.stop()


async def test_permissions_that_the_docs_name_are_enough(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/guides/replicas.md").read_text()
    (command,) = re.findall(r"`(ACL SETUSER gateway [^`]+)`", text)
    server = RedisServer(tmp_path).start()
    try:
        server.fetch(*command.replace(">PASSWORD", ">pw").split())
        url = f"redis://gateway:pw@127.0.0.1:{server.port}/0"
        async with opened(url) as store:
            received = asyncio.Event()
            watching = asyncio.create_task(
                store.watch_changes(on_change=received.set, on_gap=received.set)
            )
            await until(lambda: server.control.pubsub_numsub("{gateway}:changes")[0][1] == 1)
            await store.clients.replace_client(make_client())
            await store.tokens.add_token(make_token(), generation=7)
            assert await store.tokens.revoke_token(make_token().digest) is not None
            await asyncio.wait_for(received.wait(), scaled())
            watching.cancel()
            await store.records.add_record(make_record())
            assert len(await store.records.list_records("code")) == 1
            await store.clients.census(now=0, expiring_before=1)
            await store.content.scan_tokens("", 10)
            await store.content.estimate_tokens()
            assert await store.clients.delete_client("shop") == 0
            await store.purge(tokens_before=0, clients_before=0)
            await store.ping()
        limits = open_rate_limits(url)
        assert limits is not None
        assert (await limits.acquire([Demand("client:a", "r", RateLimit(1, 1.0, 1))])).is_allowed
        await limits.close()
    finally:
        server.stop()


async def test_cancellation_is_heeded_though_the_library_raises_another_error(
    redis: RedisStore,
) -> None:
    is_waiting = asyncio.Event()

    async def lose(connection: object) -> None:
        try:
            is_waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # What redis-py does where the connection is lost at that very moment.
            raise RedisConnectionError("lost") from None

    running = asyncio.create_task(redis._calls.link.run(lose))
    await is_waiting.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_call_that_is_cancelled_at_any_moment_ends(redis: RedisStore) -> None:
    async def fetch_forever() -> None:
        while True:
            await redis.tokens.get_token(make_token().digest)

    for number in range(200):
        decision_clients = asyncio.create_task(fetch_forever())
        await asyncio.sleep(0.0002 * (number % 13))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        decision_clients.cancel()
        done, _ = await asyncio.wait([decision_clients], timeout=scaled())
        assert done, "the cancellation was lost"
        assert decision_clients.cancelled()


async def test_full_memory_fails_the_write_and_reads_go_on(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    try:
        async with opened(server.url) as store:
            await store.clients.add_client(make_client())
            server.control.config_set("maxmemory", 1)
            for _ in range(5):
                with pytest.raises(StoreUnavailableError, match="OOM"):
                    await store.tokens.add_token(make_token(), generation=7)
            assert await store.clients.get_client("shop") == make_client()
            server.control.config_set("maxmemory", 0)
            await store.tokens.add_token(make_token(), generation=7)
            assert await store.tokens.get_token(make_token().digest) == make_token()
    finally:
        server.stop()


async def test_full_memory_fails_every_write_that_may_grow_also_over_what_is_there(
    tmp_path: Path,
) -> None:
    # A script that first removes something may write on: so the probe of `gateway.app.periodic`
    # succeeded, and the store was said to accept writes.
    server = RedisServer(tmp_path).start()
    try:
        clock = Clock()
        async with opened(server.url, clock) as store:
            await store.clients.add_client(make_client())
            records = store.records
            kept = await records.put_record(Record("kind", "kept", "owner", b"1", None))
            await records.put_record(Record("kind", "ended", "owner", b"1", clock() - 1))
            server.control.config_set("maxmemory", 1)
            for write in [
                records.put_record(Record("kind", "kept", "owner", b"2", None)),
                records.put_record(Record("kind", "kept", "another", b"2", None)),
                records.swap_record(kept, replace(kept, owner="another", value=b"2")),
                records.add_record(Record("kind", "ended", "owner", b"2", None)),
                store.clients.replace_client(make_client()),
                store.clients.set_client_rate_limit("shop", None),
            ]:
                with pytest.raises(StoreRejectedError, match="OOM"):
                    await write
            assert await records.get_record("kind", "kept") == kept
            assert await records.delete_record("kind", "kept"), "which gives memory back"
    finally:
        server.stop()


async def test_replica_that_may_not_be_written_is_unavailable_for_writes(
    tmp_path: Path, empty_redis: RedisServer
) -> None:
    replica = RedisServer(tmp_path, "--replicaof", "127.0.0.1", str(empty_redis.port)).start()
    try:
        async with opened(replica.url) as store:
            with pytest.raises(StoreUnavailableError, match=r"READONLY|MASTERDOWN"):
                await store.clients.add_client(make_client())
    finally:
        replica.stop()


@with_each_redis
async def test_name_that_leads_to_another_primary_is_followed(tmp_path: Path, binary: str) -> None:
    old, new = (RedisServer(tmp_path, binary=binary).start() for _ in range(2))
    try:
        async with (
            FaultProxy(old.port) as name,
            opened(f"redis://127.0.0.1:{name.port}") as store,
        ):
            await store.clients.add_client(make_client("before"))
            name.upstream_port = new.port
            old.fetch("REPLICAOF", "127.0.0.1", new.port)
            with pytest.raises(StoreUnavailableError, match="READONLY"):
                await store.clients.add_client(make_client("after"))
            await store.clients.add_client(make_client("after"))
        assert b"{gateway}:client:after" in new.all_keys()
    finally:
        old.stop()
        new.stop()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A CA's certificate and key, which are the server's too."""
    made = make_certificate(tmp_path, "localhost", is_ca=True)
    shutil.copy(made.cert, tmp_path / "cert.pem")
    shutil.copy(made.key, tmp_path / "key.pem")
    return tmp_path


def has_tls() -> bool:
    return b"tls-ca-cert-dir" in Path(redis_binary()).resolve().read_bytes()


@pytest.mark.skipif(
    "not __import__('test_store_redis').has_tls()",
    reason="this redis-server has no TLS: install the system's (apt-get install redis-server)",
)
async def test_rediss_speaks_tls_and_checks_the_certificate(certificates: Path) -> None:
    server = RedisServer(
        certificates,
        "--tls-port", "0", "--tls-cert-file", str(certificates / "cert.pem"),
        "--tls-key-file", str(certificates / "key.pem"),
        "--tls-ca-cert-file", str(certificates / "cert.pem"),
    )  # fmt: skip
    server.start()
    try:
        tls_port = server.start_tls()
        ca = certificates / "cert.pem"
        mutual = f"ca={ca}&cert={ca}&key={certificates / 'key.pem'}"
        async with opened(f"rediss://localhost:{tls_port}?{mutual}") as store:
            await store.clients.add_client(make_client())
            assert await store.clients.get_client("shop") == make_client()
        for options in (f"ca={ca}", mutual.replace(f"ca={ca}&", "")):
            async with opened(f"rediss://localhost:{tls_port}?{options}") as store:
                with pytest.raises(StoreUnavailableError):
                    await store.ping()
    finally:
        server.stop()


async def test_missing_certificate_file_is_reported_at_once() -> None:
    with pytest.raises(StoreError, match=r"/missing/ca\.pem: No such file"):
        await open_store("rediss://localhost?ca=/missing/ca.pem")


async def test_operations_are_observed(empty_redis: RedisServer) -> None:
    observed: list[str] = []
    outcomes: list[bool] = []
    store = await open_store(
        empty_redis.url,
        observe=lambda operation, seconds: observed.append(operation),
        health=StoreHealth(on_up=outcomes.append),
    )
    await store.ping()
    await store.clients.add_client(make_client())
    await store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.clients.get_client("shop")
    assert observed == ["ping", "add_client", "get_client"]
    assert outcomes == [True, True, False]
