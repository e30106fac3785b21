"""What `gateway run` does with signals, and after a fatal error."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from support.deadlines import scaled, until, within
from support.running_gateway import make_config

from examples.ports import free_port
from gateway.app.run import _serve
from gateway.config import parse
from gateway.workers import group as group_module

LONG_S = 20.0


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    """What a gateway of several processes does to SIGHUP is undone."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


async def start(directory: Path, **sections: Any) -> asyncio.Task[int]:
    """A gateway that runs and is ready."""
    port = free_port()
    text = make_config(directory, admin={"port": port}, **sections)
    serving = asyncio.create_task(_serve(parse(text, file="g.yaml")))
    async with within(LONG_S), aiohttp.ClientSession() as session:
        while not serving.done():
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        break
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.01)
    return serving


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_and_ends_with_status_0(
    tmp_path: Path, workers: int, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    serving = await start(tmp_path, workers=workers, shutdown={"delay": "100ms"})
    assert not serving.done(), "nobody but this process would get the signal"
    os.kill(os.getpid(), number)
    assert await asyncio.wait_for(serving, scaled(LONG_S)) == 0
    delay = "0.1" if number == signal.SIGTERM else "0"
    assert f"draining: {delay} s with readiness down" in caplog.text
    assert caplog.messages[-1] == "stopped"


async def test_second_signal_ends_the_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    serving = await start(tmp_path, shutdown={"delay": "1h"})
    assert not serving.done(), "nobody but this process would get the signal"
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: "draining" in caplog.text)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, scaled(LONG_S)) == 0


async def test_gateway_that_cannot_have_a_worker_any_more_ends_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(group_module, "GIVE_UP_AFTER", 1)
    serving = await start(tmp_path, workers=2)
    for child in psutil.Process().children():
        if "gateway.app.worker" in child.cmdline():
            child.kill()
    assert await asyncio.wait_for(serving, scaled(LONG_S)) == 1
    (error,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert error.startswith("fatal: worker ")
    assert error.endswith("was killed by signal 9 (Killed)")


async def test_signal_before_it_has_started_ends_it_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    others = psutil.Process().children()
    text = make_config(tmp_path, admin={"port": free_port()}, workers=2)
    serving = asyncio.create_task(_serve(parse(text, file="g.yaml")))
    await asyncio.sleep(0)  # it begins
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, scaled(LONG_S)) == 0
    assert caplog.messages[-1] == "stopped before it had started"
    started = [one for one in psutil.Process().children() if one not in others]
    assert not [one for one in started if one.status() != "zombie"]


async def test_gateway_that_does_not_start_ends_with_status_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serving = await start(tmp_path, workers=2, store=f"sqlite:///{tmp_path}/missing/a.db")
    assert serving.result() == 1
    (error,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert error.startswith("the gateway did not start: ")


async def test_worker_that_can_not_start_has_file_line_and_key_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "missing" / "access.log"
    text = make_config(
        tmp_path, admin={"port": free_port()}, workers=2, access_log={"path": str(path)}
    )
    line = 1 + text.splitlines().index(f"  path: {path}")
    assert await asyncio.wait_for(_serve(parse(text, file="g.yaml")), scaled(LONG_S)) == 1
    (error,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert error.startswith(f"the gateway did not start: g.yaml:{line}: access_log.path: ")
