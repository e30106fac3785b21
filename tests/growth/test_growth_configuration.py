"""Reading, checking, comparing and building a configuration costs in proportion to its length."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import yaml
from support.growth import assert_linear, cost_of, counted
from support.running_gateway import make_config

from gateway.app.build.checks import find_unusable_files
from gateway.app.gateway import Gateway
from gateway.app.generation import build_generation
from gateway.app.reloading.changes import describe_changes, find_restarts
from gateway.config import ConfigError, LoadedConfig, config_hash, named_files
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


async def test_routes_of_the_previous_configuration_go_without_the_garbage_collector(
    tmp_path: Path,
) -> None:
    gateway = Gateway(read(text(tmp_path, N)).config)
    await gateway.start()
    data = gateway._data
    stages: Any = data._generation.pipeline.stages
    before = ref(stages[2].__self__._router)
    del stages
    new = read(text(tmp_path, N, scopes=["orders:write"])).config
    gc.collect()
    gc.disable()
    try:
        await gateway._apply(new)
        is_gone = before() is None
    finally:
        gc.enable()
        await gateway.stop()
    assert data.config is new
    assert is_gone
