"""Clients of HTTP/2, closed at the end of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from support.clients.h2_client import H2Client
from support.clients.h2_raw import RawH2Client
from support.running_gateway import RunningGateway

Connect = Callable[..., Awaitable[H2Client]]


@pytest.fixture
async def connect(gateway: RunningGateway) -> AsyncIterator[Connect]:
    """Connects to the gateway, or to another `port`, by `await connect()`."""
    clients: list[H2Client] = []

    async def connect_one(port: int = 0, **how: Any) -> H2Client:
        clients.append(await H2Client.connect(port or gateway.port, **how))
        return clients[-1]

    yield connect_one
    for client in clients:
        await client.close()


@pytest.fixture
async def client(connect: Connect) -> H2Client:
    """A client that is connected to the gateway."""
    return await connect()


@pytest.fixture
async def attacker(gateway: RunningGateway) -> AsyncIterator[RawH2Client]:
    """A client of raw frames that is connected to the gateway."""
    one = await RawH2Client.connect(gateway.port)
    yield one
    await one.close()


def upstream_of(*targets: str, **settings: Any) -> dict[str, Any]:
    return {"main": {"targets": list(targets), "protocol": "http2", **settings}}


async def fetch(
    gateway: RunningGateway, method: str = "GET", path: str = "/public", **arguments: Any
) -> tuple[int, bytes]:
    async with gateway.session.request(method, gateway.url(path), **arguments) as response:
        return response.status, await response.read()


async def reason_of(gateway: RunningGateway, count: int = 1) -> str:
    return str((await gateway.logged(count))[-1]["reason"])


async def retries(gateway: RunningGateway, reason: str = "refused-stream") -> float:
    return await gateway.metric("gateway_upstream_retries_total", upstream="main", reason=reason)
