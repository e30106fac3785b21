"""Fixtures of the whole tree."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from hypothesis import settings
from support.clients.httpx_defaults import set_httpx_defaults
from support.event_loops import Loop
from support.first_collection import (
    pytest_configure_node,
    pytest_testnodedown,
    pytest_xdist_node_collection_finished,
    wait_for_first,
)
from support.hashes import make_hashes_cheap, real_hashes
from support.processes.postgresql import PostgresServer
from support.processes.redis import RedisServer
from support.protocols import PROTOCOLS, pytest_generate_tests, pytest_itemcollected
from support.running_gateway import RunningGateway, StartGateway, make_config, start_gateway
from support.secrets_scan import (
    no_secrets_left_behind,
    pytest_configure,
    pytest_runtest_setup,
    pytest_runtest_teardown,
)
from support.servers.raw_upstream import RawUpstream
from support.stores.timeouts import set_store_timeouts
from support.templates import compile_templates_once
from support.tiers import is_of_other_tier

# No test, and no fixture, leaves a token or a secret in a log or a database.
__all__ = [
    "no_secrets_left_behind",
    "pytest_configure",
    "pytest_configure_node",
    "pytest_generate_tests",
    "pytest_itemcollected",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
    "pytest_testnodedown",
    "pytest_xdist_node_collection_finished",
    "real_hashes",
]

# How long an example takes says something about the machine, and nothing about the gateway.
settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")


MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 4 * 1024**3
YOUNG_OBJECTS = 10_000
"""As many new objects make the garbage collector run."""


def _keep_files_in_memory() -> None:
    """Where there is much of it: with each commit of SQLite, a disk takes as long as a test."""
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    if shutil.disk_usage(MEMORY).free >= ENOUGH_BYTES <= psutil.virtual_memory().available:
        os.environ["TMPDIR"], tempfile.tempdir = str(MEMORY), None


_keep_files_in_memory()
# jsonschema's check of URIs, by no test of ours: a second of each process, to make its parsers.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
set_httpx_defaults()
make_hashes_cheap()
compile_templates_once()
# Compiling all modules anew would be a third of what the start of a gateway costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Without the garbage collector, which passes over what is collected from then on.

    It would look through a million objects again and again: a sixth of what the tests cost.
    """
    gc.disable()
    wait_for_first(session.config)
    yield
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over modules without a test of the tier that is asked for: some import much."""
    return True if is_of_other_tier(collection_path, config.option.markexpr) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Twice as many as cores: tests mostly wait for processes, sockets and one another."""
    return 2 * (os.cpu_count() or 1)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway runs on."""
    return {"uvloop": Loop}


@pytest.fixture(autouse=True)
def level_of_the_log() -> Iterator[None]:
    """A process that is part of a test may change it for all that follow."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.fixture(autouse=True)
def patience_with_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has to wait for a core is no outage; see `impatience_with_stores`."""
    set_store_timeouts(monkeypatch, store_s=10, rate_limits_s=10)


@pytest.fixture
def upstream_protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the upstreams of a test are spoken to by; see `support.protocols`."""
    protocol = str(getattr(request, "param", PROTOCOLS[0]))
    monkeypatch.setattr(RawUpstream, "protocol", protocol)
    return protocol


@pytest.fixture
async def upstream(upstream_protocol: str) -> AsyncIterator[RawUpstream]:
    """An upstream that answers `ok` and keeps what it got."""
    async with RawUpstream() as running:
        yield running


@pytest.fixture
def client_protocol(request: pytest.FixtureRequest) -> str:
    """What the requests of a test come by; see `support.protocols`."""
    return str(getattr(request, "param", PROTOCOLS[0]))


@pytest.fixture
async def start(
    tmp_path: Path, client_protocol: str, upstream_protocol: str
) -> AsyncIterator[StartGateway]:
    """Starts gateways by `await start(upstream_url, **config_sections)`."""
    running: list[RunningGateway] = []
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def start_one(upstream_url: str, **sections: Any) -> RunningGateway:
            text = make_config(
                tmp_path, upstream_url, upstream_protocol=upstream_protocol, **sections
            )
            running.append(await start_gateway(tmp_path, text, session, client_protocol))
            return running[-1]

        yield start_one
    for one in running:
        await one.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, which keeps what is written through a restart."""
    server = RedisServer(tmp_path, is_durable=True).start()
    yield server
    server.stop()


@pytest.fixture
async def gateway(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    """A gateway in front of `upstream`, configured as `make_config` does."""
    return await start(upstream.url)


@pytest.fixture(scope="session")
def shared_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server for tests that don't hurt it; each finds it empty by `empty_postgresql`."""
    server = PostgresServer(tmp_path_factory.mktemp("postgresql")).create("fsync = off").start()
    yield server
    server.stop()


@pytest.fixture
def own_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that a test may hurt."""
    own = PostgresServer(tmp_path_factory.mktemp("postgresql")).create().start()
    yield own
    own.stop()


@pytest.fixture
def empty_postgresql(shared_postgresql: PostgresServer) -> PostgresServer:
    """A server without anything of a gateway."""
    shared_postgresql.empty()
    return shared_postgresql
