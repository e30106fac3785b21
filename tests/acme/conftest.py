"""A CA and gateways that get certificates from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.acme_gateways import NAME, OTHER_NAME, StartWithAcme
from support.processes.pebble import Pebble
from support.running_gateway import RunningGateway, StartGateway
from support.servers.dns_server import DnsServer, dns_server
from support.stores.timeouts import set_default

from gateway.acme import issuer
from gateway.app import certificates


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    """Names of gateways, which lead to loopback."""
    async with dns_server() as server:
        server.names = {NAME: ["127.0.0.1"], OTHER_NAME: ["127.0.0.1"]}
        yield server


@pytest.fixture
async def pebble(tmp_path: Path, dns: DnsServer) -> AsyncIterator[Pebble]:
    """A CA that is not started yet."""
    server = Pebble(tmp_path / "pebble", dns_port=dns.port)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways look at once for what the others wrote, and often for what a CA has done."""
    monkeypatch.setattr(certificates, "CHECK_S", 0.1)
    monkeypatch.setattr(certificates, "WATCH_S", 0.1)
    set_default(monkeypatch, issuer.Issuer, "settle_s", 0.5)
    often = SimpleNamespace(sleep=lambda pause_s: time.sleep(pause_s / 10))
    monkeypatch.setattr("acme.client.time", often)


@pytest.fixture
def start_with_acme(start: StartGateway, pebble: Pebble) -> StartWithAcme:
    """Starts gateways by `await start_with_acme(**keys_of_acme)`."""

    async def start_one(
        host: str = "127.0.0.1", sections: dict[str, Any] | None = None, **acme: Any
    ) -> RunningGateway:
        settings = {
            "domains": [NAME],
            "directory": pebble.url,
            "directory_ca": str(pebble.ca),
            "challenge": "tls-alpn-01",
            **acme,
        }
        listen = {
            "host": host,
            "port": pebble.https_port,
            "tls": {"acme": settings},
            "http_redirect": {"host": host, "port": pebble.http_port, "https_port": 443},
        }
        return await start(
            "http://127.0.0.1:9", listen=listen, provider={"seal_key": "s" * 40}, **(sections or {})
        )

    return start_one
