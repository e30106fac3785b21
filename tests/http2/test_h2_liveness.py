"""Peers that are gone without a word, and TLS connections that HTTP/2 must not be spoken by."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from http2.conftest import Connect
from http2.test_h2_connections import make_tls
from hyperframe.frame import PingFrame
from support.clients.h2_raw import RawH2Client
from support.deadlines import duration, until
from support.running_gateway import StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream
from support.servers.raw_upstream import Conversation, RawUpstream

from gateway.http import h2_liveness
from gateway.http.h2 import is_adequate
from gateway.http.h2_liveness import PING, Liveness


@pytest.fixture(autouse=True)
def asked_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_liveness, "PING_AFTER_S", 0.1)


async def never(conversation: Conversation, upstream: RawUpstream) -> None:
    await conversation.read_head()
    await conversation.reader.read()


async def test_client_that_does_not_acknowledge_a_ping_is_gone(
    start: StartGateway, upstream: RawUpstream
) -> None:
    upstream.script = never
    gateway = await start(upstream.url, listen={"timeouts": {"body": duration(0.3)}})
    client = await RawH2Client.connect(gateway.port)
    client.send(client.head(1))
    for _ in range(2):
        ping = await client.frame(PingFrame)
        assert isinstance(ping, PingFrame)
        assert ping.opaque_data == PING
        client.send(PingFrame(0, opaque_data=PING, flags={"ACK"}))
    await client.frames()  # until it is closed
    await until(lambda: upstream.open_connections == 0)
    [line] = await gateway.logged(1)
    assert (line["status"], line["reason"]) == (499, "client_closed")
    assert gateway.gateway.metrics.data_plane.h2.errors["silent"] == 1
    await client.close()


async def test_client_without_requests_receives_no_ping(
    start: StartGateway, upstream: RawUpstream, connect: Connect
) -> None:
    gateway = await start(upstream.url)
    client = await connect(gateway.port)
    assert (await client.request()).status == 200
    await asyncio.sleep(0.3)
    assert not any(type(event).__name__ == "PingReceived" for event in client.events)


async def test_upstream_that_does_not_acknowledge_a_ping_is_gone(start: StartGateway) -> None:
    requests: list[H2Request] = []
    async with H2Upstream(on_end=requests.append) as upstream:
        main = {
            "targets": [upstream.url], "protocol": "http2", "retries": {"attempts": 0},
            "timeouts": {"response_head": "0s", "idle": "0s", "connect": duration(0.3)},
        }  # fmt: skip
        gateway = await start(upstream.url, upstreams={"main": main})
        client = await gateway.connect()
        await client.send(b"POST /public HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: upstream.pings >= 2)  # which hyper-h2 acknowledges
        assert len(upstream.open_connections) == 1
        transport = upstream.connections[0].transport
        assert transport is not None
        transport.pause_reading()
        response = await client.read_response()
        assert response.status == 502
        [line] = await gateway.logged(1)
        assert line["reason"] == "upstream_silent"


def test_peer_is_asked_once_and_given_time() -> None:
    peer = Liveness(100.0, 5.0)
    assert not peer.must_ask(100.05)
    assert peer.must_ask(100.1)
    assert not peer.must_ask(100.2)
    assert (peer.due, peer.is_lost(105.0), peer.is_lost(105.1)) == (105.1, False, True)
    peer.received_at = 103.0
    assert not peer.is_lost(200.0)


@pytest.mark.parametrize(
    ("version", "cipher", "adequate"),
    [
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256", True),
        ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", True),
        ("TLSv1.2", "DHE-RSA-CHACHA20-POLY1305", True),
        ("TLSv1.2", "ECDHE-RSA-AES256-SHA384", False),
        ("TLSv1.2", "AES128-GCM-SHA256", False),
        ("TLSv1.2", "DHE-PSK-AES128-GCM-SHA256", False),
        ("TLSv1.1", "ECDHE-RSA-AES128-SHA", False),
    ],
)
def test_ephemeral_keys_and_aead_are_adequate(version: str, cipher: str, *, adequate: bool) -> None:
    assert is_adequate(version, cipher) == adequate


async def test_inadequate_cipher_ends_http2(
    start: StartGateway, upstream: RawUpstream, connect: Connect, tmp_path: Path
) -> None:
    tls, context = make_tls(tmp_path)
    ciphers = "ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384"
    context.maximum_version = context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    gateway = await start(upstream.url, listen={"tls": {**tls, "ciphers": ciphers}})
    client = await connect(gateway.port, tls=context)
    assert await client.closed() == [(0, 0xC)]
    assert gateway.gateway.metrics.data_plane.h2.errors["inadequate_security"] == 1
    assert upstream.requests == []
