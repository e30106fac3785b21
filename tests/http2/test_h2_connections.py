"""Connections of HTTP/2: TLS, drain, reload, other clients, trusted peers, and their bounds."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from support.clients.h2_client import H2Client
from support.clients.h2_raw import CALM, CANCEL, RawH2Client
from support.deadlines import until
from support.jose_values import make_certificate
from support.programs import needs
from support.running_gateway import RunningGateway, StartGateway, make_config
from support.servers.raw_upstream import Conversation, RawUpstream

from gateway.config import parse_config
from gateway.downstream.h2_stream import H2Stream


class Gate:
    """An upstream that responds when it is opened."""

    def __init__(self, upstream: RawUpstream) -> None:
        self.is_open = asyncio.Event()
        self.waiting = 0
        upstream.script = self._serve

    async def _serve(self, conversation: Conversation, upstream: RawUpstream) -> None:
        while await conversation.read_head():
            self.waiting += 1
            await self.is_open.wait()
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.skipif("TEST_COMPILED" in os.environ, reason="replaces a method")
async def test_defect_while_it_writes_ends_the_connection(
    attacker: RawH2Client,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Events of other streams are lost with it: they would wait for ever."""

    def fail(stream: H2Stream, *, is_sent: bool) -> bool:
        raise RuntimeError("a defect")

    gate = Gate(upstream)
    attacker.send(attacker.head(1, ends=False), DataFrame(1, b"its body goes on"))
    await until(lambda: gate.waiting == 1)
    monkeypatch.setattr(H2Stream, "look", fail)
    gate.is_open.set()  # what is written then is written in a turn of the loop of its own
    assert not [one for one in await attacker.frames() if isinstance(one, GoAwayFrame)]
    assert "a defect" in caplog.text


async def test_drain_is_goaway_twice_and_loses_no_request(
    attacker: RawH2Client, gateway: RunningGateway, upstream: RawUpstream
) -> None:
    gate = Gate(upstream)
    attacker.send(attacker.head(1))
    await until(lambda: gate.waiting == 1)
    drain = asyncio.create_task(gateway.gateway.drain(delay_s=0, grace_s=60))
    # It does not acknowledge the PING behind the first one.
    for last_stream in (2**31 - 1, 1):
        frame = await attacker.frame(GoAwayFrame)
        assert isinstance(frame, GoAwayFrame)
        assert (frame.last_stream_id, frame.error_code) == (last_stream, 0)
    gate.is_open.set()
    response = await attacker.frame(HeadersFrame, 1)
    assert isinstance(response, HeadersFrame)
    assert attacker.status_of(response) == 200
    assert b"ok" in b"".join(frame.serialize_body() for frame in await attacker.frames())
    await drain


async def test_a_client_that_acknowledges_the_first_goaway_receives_the_last_one_at_once(
    attacker: RawH2Client, gateway: RunningGateway, upstream: RawUpstream
) -> None:
    gate = Gate(upstream)
    attacker.send(attacker.head(1))
    await until(lambda: gate.waiting == 1)
    drain = asyncio.create_task(gateway.gateway.drain(delay_s=0, grace_s=60))
    await attacker.frame(GoAwayFrame)
    ping = await attacker.frame(PingFrame)
    assert isinstance(ping, PingFrame)
    # It was on its way when the first GOAWAY came.
    attacker.send(attacker.head(3), PingFrame(0, opaque_data=ping.opaque_data, flags={"ACK"}))
    last = await attacker.frame(GoAwayFrame)
    assert isinstance(last, GoAwayFrame)
    assert last.last_stream_id == 3
    gate.is_open.set()
    for stream in (1, 3):
        frame = await attacker.frame(HeadersFrame)
        assert isinstance(frame, HeadersFrame)
        assert attacker.status_of(frame) == 200
        assert frame.stream_id in {1, 3}, stream
    await drain


async def test_connections_above_the_limit_receive_goaway(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    tls, context = make_tls(tmp_path)
    gateway = await start(upstream.url, listen={"tls": tls, "max_connections": 1})
    first = await H2Client.connect(gateway.port, tls=context)
    assert (await first.request()).status == 200
    second = await H2Client.connect(gateway.port, tls=context)
    assert await second.closed() == [(0, 0)]
    refused = await gateway.metric("gateway_connections_refused_total", reason="max_connections")
    assert refused == 1
    await first.close()
    await second.close()


def make_tls(directory: Path) -> tuple[dict[str, str], ssl.SSLContext]:
    """The section of a listener, and the context of its clients."""
    certificate = make_certificate(directory, "server")
    context = ssl.create_default_context(cafile=str(certificate.cert))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    return {"cert": str(certificate.cert), "key": str(certificate.key)}, context


@needs("curl")
async def test_httpx_and_curl_agree_on_http2_by_alpn(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    tls, context = make_tls(tmp_path)
    gateway = await start(upstream.url, listen={"tls": tls})
    url = f"https://127.0.0.1:{gateway.port}/public"
    async with httpx.AsyncClient(http2=True, verify=context) as client:
        responses = await asyncio.gather(*(client.get(url) for _ in range(20)))
    assert {(one.status_code, one.http_version) for one in responses} == {(200, "HTTP/2")}
    assert upstream.requests[0].all(b"x-forwarded-proto") == [b"https"]
    without = await curl("--insecure", "--http1.1", url)
    assert without == "200 1.1"
    assert await curl("--insecure", "--http2", url) == "200 2"


@needs("curl")
async def test_curl_with_prior_knowledge(gateway: RunningGateway, upstream: RawUpstream) -> None:
    url = f"http://127.0.0.1:{gateway.port}/public"
    assert await curl("--http2-prior-knowledge", url) == "200 2"
    body = "x" * 300_000
    assert await curl("--http2-prior-knowledge", "--data", body[:100_000], url) == "200 2"
    assert len(upstream.requests[-1].body) == 100_000
    # It asks for an upgrade, and goes on with HTTP/1.1.
    assert await curl("--http2", url) == "200 1.1"


async def curl(*arguments: str) -> str:
    """Status and version, as curl has them."""
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{http_version}",
        *arguments, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()


async def test_trusted_peers_may_reset_more(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(
        upstream.url, trusted_proxies=["127.0.0.0/8"], listen={"http2": {"max_resets": 20}}
    )
    proxy = await RawH2Client.connect(gateway.port)
    for stream in range(1, 201, 2):
        proxy.send(proxy.head(stream), RstStreamFrame(stream, error_code=CANCEL))
    proxy.send(proxy.head(1001))
    frame = await proxy.frame(HeadersFrame, 1001)
    assert isinstance(frame, HeadersFrame)
    await proxy.close()
    # Every one of them is accounted for, once.
    assert len(await gateway.logged(101)) == 101


async def test_others_may_not_reset_as_many(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(upstream.url, listen={"http2": {"max_resets": 20}})
    client = await RawH2Client.connect(gateway.port)
    for stream in range(1, 201, 2):
        client.send(client.head(stream), RstStreamFrame(stream, error_code=CANCEL))
    frame = await client.frame(GoAwayFrame)
    assert isinstance(frame, GoAwayFrame)
    assert frame.error_code == CALM
    assert gateway.gateway.metrics.data_plane.h2.errors["resets"] == 1
    await client.close()
    await until(lambda: gateway.gateway.metrics.data_plane.inflight_requests == 0)


async def test_a_window_that_stays_shut_ends_its_stream(
    start: StartGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda _: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
    )
    gateway = await start(upstream.url, listen={"timeouts": {"body": "300ms"}})
    client = await RawH2Client.connect(gateway.port, SettingsFrame(0, settings={4: 0}))
    client.send(client.head(1))
    frame = await client.frame(RstStreamFrame, 1)
    assert isinstance(frame, RstStreamFrame)
    assert frame.error_code == CANCEL
    assert gateway.gateway.metrics.data_plane.h2.errors["stalled"] == 1
    await client.close()
    await until(lambda: gateway.gateway.metrics.data_plane.inflight_requests == 0)
    await until(lambda: upstream.open_connections == 0)


async def test_a_window_that_opens_by_a_byte_now_and_then_does_not_hold_a_stream(
    start: StartGateway, upstream: RawUpstream
) -> None:
    upstream.respond = lambda _: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
    )
    gateway = await start(upstream.url, listen={"timeouts": {"body": "300ms"}})
    client = await RawH2Client.connect(gateway.port, SettingsFrame(0, settings={4: 0}))
    client.send(client.head(1))
    ended = asyncio.create_task(client.frame(RstStreamFrame, 1))
    while not ended.done():
        client.send(WindowUpdateFrame(1, window_increment=1))
        await asyncio.sleep(0.02)
    assert ended.result().stream_id == 1
    await client.close()


async def test_no_settings_and_half_a_head_end_with_goaway(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"timeouts": {"head": "200ms"}})
    silent = await gateway.connect()
    await silent.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (await silent.read_to_end())[-8:] == bytes(7) + b"\4"
    slow = await RawH2Client.connect(gateway.port)
    await slow.frame(SettingsFrame)
    slow.send(slow.head(1).serialize()[:-1])
    frame = await slow.frame(GoAwayFrame)
    assert isinstance(frame, GoAwayFrame)
    assert gateway.gateway.metrics.data_plane.h2.errors["head_timeout"] == 2
    await slow.close()


async def test_reload_keeps_connections_and_applies_to_them(
    gateway: RunningGateway, client: H2Client, upstream: RawUpstream
) -> None:
    assert (await client.request("/new")).status == 404
    route = {"name": "new", "match": {"path": "/new"}, "upstream": "main", "auth": "none"}
    changes: dict[str, Any] = {"routes": [route], "listen": {"limits": {"headers": 5}}}
    await reload(gateway, upstream, changes)
    assert (await client.request("/new")).status == 200
    many = [(f"x-{number}", "1") for number in range(6)]
    assert (await client.request("/new", fields=many)).status == 431
    changes["listen"] |= {"http2": {"enabled": False}}
    await reload(gateway, upstream, changes)
    await client.closed()


async def reload(gateway: RunningGateway, upstream: RawUpstream, changes: dict[str, Any]) -> None:
    text = make_config(gateway.directory, upstream.url, **changes)
    await gateway.gateway._apply(parse_config(text, file="test.yaml"))
