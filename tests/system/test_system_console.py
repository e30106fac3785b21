"""The console of a gateway with two workers on Redis: one picture of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.commands import run_beside
from support.deadlines import wait_until
from support.processes.gateway import GatewayProcess, gateway_process
from support.processes.redis import RedisServer
from support.servers.raw_upstream import RawUpstream, thread_upstream

pytestmark = pytest.mark.system
REQUESTS = 60


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with thread_upstream() as running:
        yield running


@pytest.fixture
def gateway(
    upstream: RawUpstream, redis_server: RedisServer, tmp_path: Path
) -> Iterator[GatewayProcess]:
    with gateway_process(tmp_path, upstream.url, workers=2, store=redis_server.url) as running:
        yield running


def test_console_and_api_see_all_workers_and_what_the_command_line_adds(
    gateway: GatewayProcess,
) -> None:
    assert httpx.get(f"{gateway.admin_url}/console").status_code == 404
    run_beside(
        gateway.config, "admin", "add", "alice", "--password-file", "-", stdin="twelve characters"
    )
    assert httpx.get(f"{gateway.admin_url}/console").status_code == 303
    created = run_beside(gateway.config, "admin", "token", "create", "watcher")
    token = created.split("token")[-2].split()[0]

    def fetch(path: str) -> Any:
        response = httpx.get(
            f"{gateway.admin_url}/api/v1{path}", headers={"Authorization": f"Bearer {token}"}
        )
        assert response.status_code == 200, response.text
        return response.json()

    gateway.create_client()
    bearer = {"Authorization": f"Bearer {gateway.get_token()}"}
    for _ in range(REQUESTS):  # each on a connection of its own, so both workers get some
        assert httpx.get(f"{gateway.url}/api/x", headers=bearer).status_code == 200
        assert httpx.get(f"{gateway.url}/api/x").status_code == 401

    def refusals() -> int:
        events = fetch("/events")["events"]
        return sum(event["count"] for event in events if event["title"] == "missing")

    wait_until(lambda: refusals() == REQUESTS)
    assert fetch("/overview")["workers"] == 2
    wait_until(lambda: fetch("/overview")["cache_hit_ratio"])
    (main,) = fetch("/upstreams")["upstreams"]
    assert (main["name"], main["processes"]) == ("main", 2)
    assert main["endpoints"][0]["up_in"] == 2
    # Both are written down in their own time.
    wait_until(lambda: fetch("/clients/shop/usage")["last_used"])
    wait_until(lambda: fetch("/clients/shop/usage")["tokens_issued"])
    usage = fetch("/clients/shop/usage")
    assert (usage["tokens_issued"], usage["live_tokens"]) == (1, 1)
    entries = fetch("/audit")["entries"]
    assert [entry["action"] for entry in entries] == ["admin.token.create", "admin.add"]
    assert entries[0]["actor"].startswith("command line")
