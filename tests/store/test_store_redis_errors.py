"""Whatever the Redis client raises is an error of the store, with a reason that helps."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import pkgutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis
from redis.exceptions import RedisClusterException
from support.processes.redis import RedisServer, with_each_redis
from support.stores.timeouts import set_store_timeouts
from support.stores.values import make_client, make_token

from gateway.oauth.models import StoreRejectedError, StoreUnavailableError
from gateway.store import open_store
from gateway.store.breaker import StoreBreaker
from gateway.store.redis.errors import as_store_error
from gateway.store.redis.link import RedisLink
from gateway.store_url import RedisUrl, parse_store_url

SECRET = "a-secret-argument"


def modules_of_the_library() -> list[ModuleType]:
    """All modules of redis-py, but those that need packages which are not there."""
    found = [redis]
    for module in pkgutil.walk_packages(redis.__path__, "redis."):
        with contextlib.suppress(ImportError):
            found.append(importlib.import_module(module.name))
    return found


def exceptions_of_the_library() -> list[type[Exception]]:
    """Every exception class that redis-py defines, in whatever module."""
    return sorted(
        {
            one
            for module in modules_of_the_library()
            for one in vars(module).values()
            if inspect.isclass(one)
            and issubclass(one, Exception)
            and one.__module__.startswith("redis")
        },
        key=lambda one: (one.__module__, one.__qualname__),
    )


def make_exception(kind: type[Exception]) -> Exception:
    """One with a text; those that can't have one are made without."""
    for arguments in ((f"text with {SECRET}",), (f"1 host:1 {SECRET}",), ()):
        with contextlib.suppress(Exception):
            return kind(*arguments)
    return kind.__new__(kind)


def raise_in(module: str, error: Exception) -> Any:
    """A function of a module that raises `error`."""
    names: dict[str, Any] = {"__name__": module, "error": error}
    exec("async def fail(connection):\n    raise error", names)
    return names["fail"]


@pytest.fixture
async def link(empty_redis: RedisServer) -> AsyncIterator[RedisLink]:
    where = parse_store_url(empty_redis.url)
    assert isinstance(where, RedisUrl)
    opened = RedisLink(where, breaker=StoreBreaker(failures=1_000_000))
    yield opened
    await opened.close()


def test_enumeration_finds_the_exceptions_that_matter() -> None:
    names = {one.__name__ for one in exceptions_of_the_library()}
    assert len(names) > 30
    assert names >= {"RedisError", "RedisClusterException", "ClusterDownError", "WatchError"}
    assert names >= {"SlotNotCoveredError", "MasterNotFoundError", "ChildDeadlockedError"}
    assert not issubclass(RedisClusterException, redis.RedisError)


@pytest.mark.parametrize("kind", exceptions_of_the_library(), ids=lambda kind: kind.__name__)
async def test_every_exception_class_of_the_library_is_unavailability(
    link: RedisLink, kind: type[Exception]
) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        # As a class of the library, wherever it is raised.
        await link.run(raise_in("somewhere.else", make_exception(kind)))
    assert str(caught.value).startswith("Redis: ")
    assert len(str(caught.value)) < 400
    if not issubclass(kind, redis.ConnectionError | redis.TimeoutError):
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "error", [KeyError("slot"), IndexError(), AttributeError("writelines"), RuntimeError("closed"),
              TypeError(), ValueError(), EOFError(), AssertionError(), UnicodeError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_what_the_library_stumbles_over_is_unavailability_and_one_traceback(
    link: RedisLink, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await link.run(raise_in("redis.asyncio.connection", error.with_traceback(None)))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(type(error)):  # a slip of our own is no outage
        await link.run(raise_in("gateway.store.something", error.with_traceback(None)))


async def test_outage_of_a_library_call_opens_the_breaker(empty_redis: RedisServer) -> None:
    where = parse_store_url(empty_redis.url)
    assert isinstance(where, RedisUrl)
    link = RedisLink(where)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await link.run(raise_in("redis.cluster", RedisClusterException("no node")))
    assert link.is_resting
    await link.close()


def test_reasons_are_codes_and_never_arguments() -> None:
    parser: Any = redis._parsers.base.BaseParser
    for text, reason in {
        f"OOM command not allowed {SECRET}": "OOM, out of memory (maxmemory)",
        f"NOREPLICAS Not enough {SECRET}": "NOREPLICAS, too few replicas (min-replicas-to-write)",
        f"WRONGTYPE Operation {SECRET}": "WRONGTYPE, a key holds a value of another type",
        f"ERR Error running script: -READONLY You can't {SECRET}":
            "READONLY, a replica takes no writes",
        f"Command # 1 (SET {SECRET}) of pipeline caused error: ('NOREPLICAS Not enough',)":
            "NOREPLICAS, too few replicas (min-replicas-to-write)",
        "ERR DB index is out of range": "DB index is out of range",
        f"ERR unknown command 'XINFO', with args beginning with: {SECRET}":
            "unknown command XINFO",
        f"ERR something else {SECRET}": "ERR",
        f"{SECRET}": "ResponseError",
    }.items():  # fmt: skip
        parsed = parser.parse_error(text)
        failure = as_store_error(parsed)
        assert isinstance(failure, StoreRejectedError)
        assert str(failure) == f"Redis: {reason}"
    error = RedisClusterException(f"No way to dispatch this command. Command: {SECRET}")
    assert str(as_store_error(error)) == "Redis: RedisClusterException"
    assert str(as_store_error(TimeoutError())) == "Redis: no response in time"
    assert str(as_store_error(redis.TimeoutError())) == "Redis: no response in time"


async def failure_of(url: str) -> str:
    """Why a store at this URL is unavailable."""
    store = await open_store(url)
    try:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.clients.add_client(make_client())
    finally:
        await store.close()
    return str(caught.value)


@with_each_redis
async def test_messages_of_real_servers_name_the_reason(
    tmp_path: Path, binary: str, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisServer(tmp_path, binary=binary).start()
    try:
        await messages_name_the_reason(server, unused_tcp_port)
        # It waits for the rest of what is no command.
        set_store_timeouts(monkeypatch, store_s=0.5, rate_limits_s=0.5)
        tls = server.url.replace("redis://", "rediss://")
        assert len(await failure_of(tls)) > len("Redis: ") + 5
    finally:
        server.stop()


async def messages_name_the_reason(server: RedisServer, unused_tcp_port: int) -> None:
    control = server.control
    assert "DB index is out of range" in await failure_of(f"{server.url}/99")
    assert "onnect" in await failure_of(f"redis://127.0.0.1:{unused_tcp_port}")
    server.fetch("ACL", "SETUSER", "reader", "on", ">x", "~*", "&*", "+@all", "-@write")
    reader = server.url.replace("redis://", "redis://reader:x@")
    assert "NOPERM" in await failure_of(reader)
    wrong = server.url.replace("redis://", "redis://reader:wrong@")
    assert "WRONGPASS" in await failure_of(wrong)
    control.set("{gateway}:clients", "a string")
    assert "WRONGTYPE" in await failure_of(server.url), "within a script"
    control.flushall()
    control.config_set("min-replicas-to-write", 1)
    assert "NOREPLICAS" in await failure_of(server.url)


async def test_server_that_does_not_respond_is_said_to_time_out(
    empty_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_store_timeouts(monkeypatch, store_s=0.5, rate_limits_s=0.5)
    empty_redis.pause()
    try:
        assert "imeout" in (text := await failure_of(empty_redis.url)) or "in time" in text
    finally:
        empty_redis.resume()


async def test_sentinels_that_are_unavailable_are_a_short_message(unused_tcp_port: int) -> None:
    text = await failure_of(f"redis+sentinel://127.0.0.1:{unused_tcp_port}/gateway")
    assert text == "Redis: no Sentinel responds and knows a primary of this name"


async def test_unreadable_values_are_no_500(
    empty_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    control = empty_redis.control
    store = await open_store(empty_redis.url)
    try:
        for client_id in ("a", "b"):
            await store.clients.add_client(make_client(client_id))
        control.hset("{gateway}:client:a", "created", "yesterday")
        with pytest.raises(StoreUnavailableError, match="client 'a' can't be read"):
            await store.clients.get_client("a")
        assert [client.client_id for client in await store.clients.list_clients()] == ["b"]
        assert [client.client_id for client in await store.usage.search_clients("")] == ["b"]
        control.hdel("{gateway}:client:b", "name")
        with pytest.raises(StoreUnavailableError):
            await store.clients.get_client("b")
        control.set(f"gateway:token:{make_token().digest.hex()}", b"\xff\x00nonsense")
        with pytest.raises(StoreUnavailableError, match="a token can't be read"):
            await store.tokens.get_token(make_token().digest)
        assert any("'a'" in record.message for record in caplog.records)
        assert all(record.levelno == logging.WARNING for record in caplog.records)
    finally:
        await store.close()
