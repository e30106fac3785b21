"""Reading, checking, comparing and building a configuration costs in proportion to its length."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any
from weakref import finalize

import pytest
import yaml
from support.growth import assert_linear, cost_of, counted
from support.running_gateway import make_config

from gateway.app.build.checks import find_unusable_files
from gateway.app.gateway import Gateway
from gateway.app.generation import Generation, build_generation
from gateway.app.reloading.changes import describe_changes, find_restarts
from gateway.config import ConfigError, LoadedConfig, config_hash, load, named_files
from gateway.config.loading import parse

N = 20


def text(directory: Path, n: int, **changes: Any) -> str:
    """`n` upstreams and `n` routes with conditions, rules and a variable each."""
    config = yaml.safe_load(make_config(directory))
    config["upstreams"] = {
        f"u{at}": {"targets": [f"http://127.0.0.1:{20000 + at}"]} for at in range(n)
    }
    config["routes"] = [
        {
            "name": f"r{at}",
            "match": {
                "path": f"/api/r{at}",
                "methods": ["GET"],
                "headers": [{"name": "x-v", "exact": f"v{at}"}],
            },
            "upstream": f"u{at}",
            "scopes": ["orders:read"],
            "request_headers": {"set": {"X-Key": "${KEY}"}},
            **changes,
        }
        for at in range(n)
    ]
    return yaml.safe_dump(config, sort_keys=False)


def read(text: str) -> LoadedConfig:
    return parse(text, file="g.yaml", environ={"KEY": "secret"})


def test_reading_and_checking(tmp_path: Path) -> None:
    costs = [cost_of(lambda n=n: read(text(tmp_path, n))) for n in (N, 4 * N)]  # type: ignore[misc]
    assert_linear(*costs)


def test_reporting_what_is_wrong(tmp_path: Path) -> None:
    def refuse(n: int) -> None:
        with pytest.raises(ConfigError) as caught:
            read(text(tmp_path, n, upstream="missing", body_limit="many"))
        assert len(caught.value.problems) >= n

    assert_linear(cost_of(lambda: refuse(N)), cost_of(lambda: refuse(4 * N)))


def test_comparing_with_the_configuration_before(tmp_path: Path) -> None:
    costs = []
    for n in (N, 4 * N):
        old, new = read(text(tmp_path, n)), read(text(tmp_path, n, scopes=["orders:write"]))
        with counted() as cost:
            changes = describe_changes(old, new)
            find_restarts(old.config, new)
            find_unusable_files(new)
            list(named_files(new.config))
            config_hash(new.config)
        assert len(changes) == n
        costs.append(int(cost))
    assert_linear(*costs)


async def test_building_and_activating(tmp_path: Path) -> None:
    built, activated = [], []
    for n in (N, 4 * N):
        directory = tmp_path / str(n)
        directory.mkdir()
        gateway = Gateway(read(text(directory, n)).config)
        await gateway.start()
        try:
            new = read(text(directory, n, scopes=["orders:write"])).config
            data = gateway._data
            with counted() as cost:
                generation = build_generation(new, data._shared, data._generation)
            built.append(int(cost))
            with counted() as cost:  # on the event loop
                data.commit(generation)
                gateway._admin.reconfigure(new)
            activated.append(int(cost))
        finally:
            await gateway.stop()
    assert_linear(*built)
    assert_linear(*activated)
    assert activated[1] < built[1] / 20, "what takes long is done in a thread before"


async def test_previous_configuration_goes_in_turns_of_the_loop_and_without_the_garbage_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes time for each route, and has to be done on the loop, is not done in one piece."""
    file = tmp_path / "gateway.yaml"
    file.write_text(text(tmp_path, N))
    monkeypatch.setenv("KEY", "secret")
    loaded = load(file)
    gateway = Gateway(loaded.config, loaded=loaded)
    await gateway.start()
    assert gateway.reloader is not None
    data, loop = gateway._data, asyncio.get_running_loop()
    stages: Any = data._generation.pipeline.stages
    turns: dict[str, int] = {}
    turn = 0

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    def note(what: str) -> None:
        turns[what] = turn

    finalize(stages[2].__self__._router, note, "routes")
    finalize(loaded.config, note, "configuration")
    del stages, loaded
    commit = data.commit

    def commit_and_note(generation: Generation) -> None:
        note("commit")
        commit(generation)

    monkeypatch.setattr(data, "commit", commit_and_note)
    file.write_text(text(tmp_path, N, scopes=["orders:write"]))
    count()
    gc.collect()
    gc.disable()
    try:
        assert (await gateway.reloader.reload("signal")).result == "ok"
        assert turns["commit"] < turns["routes"] < turns["configuration"]
    finally:
        gc.enable()
        await gateway.stop()


async def test_reload_does_not_count_what_the_garbage_collector_passes_over() -> None:
    """For it looks at each of these objects, on the event loop."""
    program = """
import gc
from gateway.app.generation import requests_first
from gateway.app.process import keep_what_is_made

def count():
    raise AssertionError

gc.disable()
keep_what_is_made()
gc.get_freeze_count = count
with requests_first():
    pass
"""
    subprocess.run([sys.executable, "-c", program], check=True)
