"""An exception that nobody foresaw, in each background task: what waits for it gets an error, one
line is logged, and the task goes on."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import until, within
from support.running_gateway import StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.app.reloading.watching import FileWatch
from gateway.metrics import Metrics
from gateway.oauth.keys.remote import IssuerUnavailableError, RemoteKeys
from gateway.oauth.models import AccessToken
from gateway.oauth.token_cache import TokenCache
from gateway.upstream.discovery import ResolvedAddresses
from gateway.workers.group import WorkerGroup, WorkerStartError
from gateway.workers.messages import Start
from gateway.workers.process import execute

KINDS = {
    "health_checks": "health checks of upstream main",
    "discovery": "look-ups of upstream main",
    "files": "watch on the files of the configuration",
}


class UnforeseenError(Exception):
    """What no `except` names."""


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", ["health_checks", "discovery"])
async def test_task_of_an_upstream_goes_on(
    kind: str,
    start: StartGateway,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("gateway.background.FIRST_PAUSE_S", 0.01)
    failures = 3
    name = {
        "health_checks": "gateway.upstream.health_checks.check",
        "discovery": "gateway.upstream.discovery.DnsResolver.look_up",
    }[kind]
    calls = 0

    async def fail(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise UnforeseenError
        return "" if kind == "health_checks" else ResolvedAddresses(("127.0.0.1",), 0.0)

    monkeypatch.setattr(name, fail)
    main: dict[str, Any] = {"targets": [upstream.url]}
    if kind == "health_checks":
        main["health_check"] = {"path": "/", "interval": "100ms"}
    else:
        main = {
            "targets": [f"http://shop.test:{upstream.port}"],
            "dns": {"discover": True, "refresh": "100ms"},
        }
    await start(upstream.url, upstreams={"main": main})
    await until(lambda: calls > failures)
    failed = [one for one in lines(caplog) if KINDS[kind] in one and "failed" in one]
    assert failed == [f"background task failed: {KINDS[kind]}; continuing"]


async def test_watch_on_files_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.background.FIRST_PAUSE_S", 0.01)
    path = tmp_path / "a.yaml"
    path.write_text("a")
    reloads = 0

    async def reload() -> None:
        nonlocal reloads
        reloads += 1
        if reloads < 3:
            raise UnforeseenError

    watch = FileWatch(
        expected=lambda: {path: b""}, on_change=reload, interval_s=lambda: 0.01,
        debounce_s=lambda: 0.01,
    )  # fmt: skip
    task = asyncio.create_task(watch.run())
    await until(lambda: reloads > 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lines(caplog) == [
        f"background task failed: {KINDS['files']}; continuing",
        f"background task succeeds again: {KINDS['files']}",
    ]


async def test_request_that_waits_for_keys_gets_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def fetch(url: str) -> object:
        raise UnforeseenError

    keys = RemoteKeys(fetch)
    url = "https://issuer.test/jwks.json"
    waiting = [asyncio.create_task(keys._refresh(url, keys._source(url))) for _ in range(3)]
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, IssuerUnavailableError)
        assert "UnforeseenError" in str(result)
    assert len(lines(caplog)) == 1


async def test_request_whose_dial_fails_unforeseen_is_502_and_logged(
    start: StartGateway,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*arguments: object) -> object:
        raise UnforeseenError

    gateway = await start(upstream.url, upstreams={"main": {"retries": {"attempts": 0}}})
    monkeypatch.setattr("gateway.upstream.pool.ConnectionPool.open", fail)
    async with within(), gateway.session.get(gateway.url("/public")) as response:
        assert response.status == 502
    assert lines(caplog) == ["connecting to an upstream failed"]
    assert await gateway.metric("gateway_inflight_requests") == 0


async def test_requests_that_share_a_dial_of_http2_do_not_wait_for_ever(
    start: StartGateway,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("ngh2")

    async def fail(*arguments: object) -> object:
        raise UnforeseenError

    main = {"protocol": "http2", "retries": {"attempts": 0}}
    gateway = await start(upstream.url, upstreams={"main": main})
    monkeypatch.setattr("gateway.upstream.h2_pool.MultiplexedPool._dial_shared", fail)

    async def fetch() -> int:
        async with gateway.session.get(gateway.url("/public")) as response:
            return response.status

    async with within():
        assert await asyncio.gather(*(fetch() for _ in range(3))) == [502] * 3
    assert set(lines(caplog)) == {"connecting to an upstream failed"}


async def test_read_of_a_token_fails_for_its_callers_and_is_logged_without_any(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started, released = asyncio.Event(), asyncio.Event()

    class Tokens:
        async def get_token(self, digest: bytes) -> AccessToken | None:
            started.set()
            await released.wait()
            raise UnforeseenError

    cache = TokenCache(Tokens(), Metrics())
    callers = [asyncio.create_task(cache.lookup("t")) for _ in range(3)]
    await started.wait()
    released.set()
    for result in await asyncio.gather(*callers, return_exceptions=True):
        assert isinstance(result, UnforeseenError)
    released.clear()
    started.clear()
    alone = asyncio.create_task(cache.lookup("other"))
    await started.wait()
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    released.set()
    assert "background task failed: reads of tokens; continuing" in lines(caplog)
    with pytest.raises(UnforeseenError):
        await cache.lookup("t")  # it is read again, and not stuck


async def test_handshake_that_fails_unforeseen_is_counted_and_logged_once(
    start: StartGateway,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = await start(
        upstream.url, listen={"proxy_protocol": {"trusted_proxies": ["127.0.0.1/32"]}}
    )

    async def fail(*arguments: object) -> str:
        raise UnforeseenError

    monkeypatch.setattr("gateway.downstream.handshake._read_proxy_header", fail)
    for _ in range(3):
        client = await gateway.connect()
        assert await client.read_to_end() == b""
    assert lines(caplog) == ["background task failed: handshakes of clients; continuing"]
    monkeypatch.undo()
    received = await gateway.send(b"PROXY UNKNOWN\r\nGET /public HTTP/1.0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")


async def test_upstream_that_fails_to_stop_keeps_neither_a_reload_nor_the_stop_from_ending(
    start: StartGateway,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = await start(upstream.url)

    async def fail(self: object) -> None:
        raise UnforeseenError

    monkeypatch.setattr("gateway.upstream.upstream.Upstream.stop", fail)
    async with within():
        await gateway.stop()
    assert lines(caplog) == ["stopping upstream main failed"]


async def test_group_whose_task_fails_unforeseen_gives_up_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: object, number: int) -> str:
        raise UnforeseenError

    monkeypatch.setattr(WorkerGroup, "_live", fail)
    group = WorkerGroup(
        2, launch=execute(lambda number, channel: ["true"], ()), start=lambda: Start("", b"", []),
        receive=lambda message: None, on_restart=lambda: None,
    )  # fmt: skip
    async with within():
        with pytest.raises(WorkerStartError, match="the supervisor failed"):
            await group.start()
    assert "the supervisor failed" in lines(caplog)
