"""Protocols besides WebSocket that a route lets requests switch to."""

from __future__ import annotations

import pytest
from support.deadlines import until, within
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream

from gateway.config import ConfigError, parse_config

REQUEST = b"%b /api/exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n"


@pytest.fixture
async def gateway(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    async def switch(conversation: Conversation, upstream: RawUpstream) -> None:
        while (received := await conversation.read_head()) is not None:
            upstream.requests.append(received)
            upgrade = b"".join(received.all(b"upgrade"))
            if not upgrade:
                await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            named = b"other" if b"liar" in received.request_line else upgrade
            await conversation.send(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                b"Upgrade: %b\r\n\r\nfirst" % named
            )
            while data := await conversation.reader.read(65536):
                await conversation.send(data.upper())
            return

    upstream.script = switch
    route = {
        "name": "exec", "match": {"path": "/api"}, "upstream": "main", "auth": "none",
        "upgrades": ["SPDY/3.1", "tcp"],
    }  # fmt: skip
    plain = {"name": "plain", "match": {"path": "/plain"}, "upstream": "main", "auth": "none"}
    return await start(upstream.url, routes=[route, plain])


@pytest.mark.parametrize("method", [b"POST", b"GET"])
@pytest.mark.parametrize("protocol", [b"SPDY/3.1", b"spdy/3.1", b"tcp"])
async def test_named_protocol_is_tunnelled_both_ways(
    gateway: RunningGateway, upstream: RawUpstream, method: bytes, protocol: bytes
) -> None:
    client = await gateway.connect()
    await client.send(REQUEST % (method, protocol, b"Content-Length: 0\r\n") + b"early")
    async with within():
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nUpgrade: %b\r\n" % protocol in head
        assert await client.reader.readexactly(10) == b"firstEARLY"
        await client.send(b"x" * 300_000)
        assert await client.reader.readexactly(300_000) == b"X" * 300_000
    await client.close()
    await until(lambda: upstream.open_connections == 0)
    assert upstream.requests[0].all(b"upgrade") == [protocol]
    assert upstream.requests[0].all(b"connection") == [b"Upgrade"]


@pytest.mark.parametrize(
    ("path", "upgrade", "more"),
    [
        (b"/api", b"h2c", b""),
        (b"/api", b"foo", b""),
        (b"/api", b"tcp, foo", b""),
        (b"/plain", b"tcp", b""),
        (b"/api", b"tcp", b"Content-Length: 1\r\n"),
    ],
)
async def test_other_upgrades_are_dropped_and_the_request_is_a_plain_one(
    gateway: RunningGateway, upstream: RawUpstream, path: bytes, upgrade: bytes, more: bytes
) -> None:
    client = await gateway.connect()
    await client.send(
        REQUEST.replace(b"/api/exec", path) % (b"POST", upgrade, more) + b"x"[: len(more)]
    )
    assert (await client.read_response()).status == 200
    assert upstream.requests[0].all(b"upgrade") == []


async def test_switch_to_another_protocol_than_was_asked_for_is_502(
    gateway: RunningGateway,
) -> None:
    request = REQUEST.replace(b"/api/exec", b"/api/liar") % (b"GET", b"tcp", b"")
    client = await gateway.connect()
    await client.send(request)
    assert (await client.read_response()).status == 502


@pytest.mark.parametrize("name", ["h2c", "HTTP/2.0", "TLS/1.0", "a b", "a,b", ""])
def test_protocols_that_would_hide_requests_are_rejected(name: str) -> None:
    with pytest.raises(ConfigError, match=r"routes\[0\]\.upgrades"):
        parse_config(
            "provider: {registration: {mode: 'off'}}\n"
            "upstreams: {main: {targets: ['http://h:1']}}\n"
            f"routes: [{{name: a, match: {{path: /}}, upstream: main, upgrades: ['{name}']}}]\n",
            file="g.yaml",
            environ={},
        )
