"""Connections that the gateway closes, while the client does not take all of the response."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable
from typing import cast

import pytest
from support import settings
from support.deadlines import scaled, until, within
from support.wire import Wire

from gateway.downstream import h1
from gateway.downstream.connections import ConnectionManager
from gateway.downstream.request import Request
from gateway.downstream.stream import ClientStream
from gateway.downstream.turns import MUCH_BYTES
from gateway.http.response_head import make_response_head
from gateway.metrics import Metrics

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
BELOW_WATER, ABOVE_WATER = 40_000, 400_000
"""More than the sockets hold, and less or more than a transport keeps before it says so."""


async def request(
    data: bytes, response_bytes: int, *, body_timeout_s: float = 0.1
) -> tuple[socket.socket, ConnectionManager]:
    """Send a request on a connection of small buffers, to a gateway that responds at once."""

    def respond(stream: ClientStream, request: Request) -> None:
        body = bytes(response_bytes)
        stream.respond(make_response_head(200, (), length=len(body)), body)
        stream.release()

    limits = dataclasses.replace(
        settings.CLIENT_LIMITS, body_timeout_s=body_timeout_s, keepalive_timeout_s=0.1
    )
    server = ConnectionManager(respond, limits=limits, metrics=Metrics())
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listening.getsockname())
        accepted, _ = listening.accept()
    for one in (client, accepted):
        one.setblocking(False)
    loop = asyncio.get_running_loop()
    make = cast(Callable[[], asyncio.BaseProtocol], server.make_connection)
    await loop.connect_accepted_socket(make, accepted)
    assert len(server.connections) == 1
    await loop.sock_sendall(client, data)
    return client, server


@pytest.mark.parametrize("data", [GET, LAST, LAST + b"X"])
@pytest.mark.parametrize("response_bytes", [BELOW_WATER, ABOVE_WATER])
async def test_client_that_takes_no_response_holds_no_connection(
    monkeypatch: pytest.MonkeyPatch, data: bytes, response_bytes: int
) -> None:
    monkeypatch.setattr(h1, "LINGER_S", 0.1)
    client, server = await request(data, response_bytes)
    with client:
        await until(lambda: not server.connections)


async def test_client_that_takes_the_response_late_and_stays_holds_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind its last request it has sent what is not read."""
    monkeypatch.setattr(h1, "LINGER_S", 0.1)
    client, server = await request(LAST + b"X", ABOVE_WATER, body_timeout_s=scaled())
    with client:
        async with within():
            while await asyncio.get_running_loop().sock_recv(client, 65_536):
                pass
        await until(lambda: not server.connections)


async def test_what_comes_after_the_last_response_is_thrown_away_with_pauses() -> None:
    """Copying it is work, and so is the next connection of such a client."""
    wires = [Wire() for _ in range(3)]
    for wire in wires:
        wire.receive(b"not a head\r\n\r\n", turns=False)
        assert wire.transport.has_ended
        wire.receive(b"x" * MUCH_BYTES, turns=False)
        assert not wire.transport.is_paused, "a little more is just read"
        wire.receive(b"x" * (MUCH_BYTES + 1), turns=False)
        assert wire.transport.is_paused
    assert not any(wire.server.turns._waiting for wire in wires), "for a while, not for a turn"
    wires[0].connection.connection_lost(None)
    wires[0].transport.close()
    await until(lambda: not any(wire.transport.is_paused for wire in wires[1:]))
    assert wires[0].transport.is_paused, "one that has gone is left alone"
