"""An exception that nobody foresaw, in each background task: what waits for it gets an error, one
line is logged, and the task goes on."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import until
from support.running_gateway import StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.app.reloading.watching import FileWatch
from gateway.oauth.keys.remote import IssuerUnavailableError, RemoteKeys
from gateway.upstream.discovery import ResolvedAddresses

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
