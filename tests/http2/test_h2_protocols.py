"""Which protocol an upstream is spoken to by, and health checks by it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import duration, until, within
from support.jose_values import make_certificate
from support.running_gateway import RunningGateway, StartGateway, make_config
from support.servers.h2_upstream import H2Request, H2Upstream
from support.servers.raw_upstream import RawUpstream

from gateway.app.build import tls as tls_of_upstreams
from gateway.config import parse_config
from gateway.config.problems import ConfigError
from gateway.config.upstreams import UpstreamTls

WEBSOCKET = (
    b"GET /public HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def server_context(directory: Path, *protocols: str) -> ssl.SSLContext:
    made = make_certificate(directory, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    context.set_alpn_protocols(list(protocols))
    return context


def main(url: str, **settings: Any) -> dict[str, Any]:
    return {"main": {"targets": [url], "tls": {"verify": False}, **settings}}


async def fetch(gateway: RunningGateway) -> tuple[int, bytes]:
    async with gateway.session.get(gateway.url("/public")) as response:
        return response.status, await response.read()


@pytest.mark.parametrize("protocol", ["auto", "http2"])
async def test_alpn_chooses_http2(start: StartGateway, tmp_path: Path, protocol: str) -> None:
    tls = server_context(tmp_path, "h2", "http/1.1")
    async with H2Upstream(tls=tls) as upstream:
        gateway = await start("", upstreams=main(upstream.url, protocol=protocol))
        assert await asyncio.gather(*(fetch(gateway) for _ in range(5))) == [(200, b"ok")] * 5
        assert len(upstream.connections) == 1
        assert upstream.requests[0].one(b":scheme") == b"https"


@pytest.mark.parametrize("offered", [("http/1.1",), ()])
async def test_target_that_does_not_choose_it_is_spoken_to_by_http1(
    start: StartGateway, tmp_path: Path, offered: tuple[str, ...], upstream: RawUpstream
) -> None:
    async with RawUpstream() as secure:
        await secure.stop()
        await secure.start(tls=server_context(tmp_path, *offered))
        gateway = await start("", upstreams=main(f"https://127.0.0.1:{secure.port}"))
        assert await asyncio.gather(*(fetch(gateway) for _ in range(5))) == [(200, b"ok")] * 5
        before = secure.connections
        for _ in range(5):
            assert await fetch(gateway) == (200, b"ok")
        assert secure.connections == before <= 5


async def test_http2_only_needs_a_target_that_chooses_it(
    start: StartGateway, tmp_path: Path
) -> None:
    async with RawUpstream() as secure:
        await secure.stop()
        await secure.start(tls=server_context(tmp_path, "http/1.1"))
        url = f"https://127.0.0.1:{secure.port}"
        gateway = await start("", upstreams=main(url, protocol="http2", retries={"attempts": 0}))
        assert (await fetch(gateway))[0] == 502
        [line] = await gateway.logged(1)
        assert line["reason"] == "upstream_connect_failed"


async def test_websocket_beside_http2_is_offered_http1_only(
    start: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target speaks both; hyper-h2 takes the handshake for what it is not, and closes.

    The TLS context for it is made when a WebSocket needs it, once, and off the event loop."""
    made: list[tuple[tuple[str, ...], bool]] = []
    make = tls_of_upstreams._make_context

    def noted(tls: UpstreamTls, alpn: tuple[str, ...]) -> ssl.SSLContext:
        made.append((alpn, threading.current_thread() is threading.main_thread()))
        return make(tls, alpn)

    monkeypatch.setattr(tls_of_upstreams, "_make_context", noted)
    tls = server_context(tmp_path, "h2", "http/1.1")
    async with H2Upstream(tls=tls) as upstream:
        gateway = await start("", upstreams=main(upstream.url))
        assert await fetch(gateway) == (200, b"ok")
        assert [alpn for alpn, _ in made] == [("h2", "http/1.1")]
        for _ in range(2):
            client = await gateway.connect()
            await client.send(WEBSOCKET)
            assert (await client.read_response()).status == 502
        chosen = [one.transport_alpn for one in upstream.connections]
        assert chosen == ["h2", "http/1.1", "http/1.1"]
        assert made[1:] == [(("http/1.1",), False)]
        assert await fetch(gateway) == (200, b"ok")


def health(request: H2Request, status: bytes, grpc_status: bytes = b"0") -> None:
    message = b"\x08" + status if status else b""
    request.head(headers=[(b"content-type", b"application/grpc")])
    request.send(b"\0" + len(message).to_bytes(4) + message)
    request.end([(b"grpc-status", grpc_status)])


async def unhealthy(gateway: RunningGateway, count: int) -> None:
    async with within():
        while await gateway.metric("gateway_upstream_unhealthy", upstream="main") != count:
            await asyncio.sleep(0.02)


CHECK = {"interval": "20ms", "timeout": duration(5), "unhealthy_threshold": 1,
         "healthy_threshold": 1}  # fmt: skip


async def test_health_service_of_grpc_is_asked(start: StartGateway) -> None:
    status = b"\x01"

    def respond(request: H2Request) -> None:
        if request.one(b":path") != b"/grpc.health.v1.Health/Check":
            request.respond()
        elif status == b"?":
            request.head(headers=[(b"content-type", b"application/grpc"), (b"grpc-status", b"12")],
                         ends=True)  # fmt: skip
        else:
            health(request, status)

    async with H2Upstream(on_end=respond) as upstream:
        settings = {"protocol": "http2", "health_check": CHECK | {"grpc": {"service": "shop.v1"}}}
        gateway = await start("", upstreams=main(upstream.url, **settings))
        await until(lambda: len(upstream.requests) > 1)
        request = upstream.requests[0]
        assert request.body == b"\0\0\0\0\x09\x0a\x07shop.v1"
        assert request.one(b"content-type") == b"application/grpc"
        assert request.one(b"te") == b"trailers"
        await unhealthy(gateway, 0)
        for ill in (b"\x02", b"\x03", b"", b"?"):
            status = ill
            await unhealthy(gateway, 1)
            status = b"\x01"
            await unhealthy(gateway, 0)


async def test_health_check_by_path_speaks_http2(start: StartGateway) -> None:
    async with H2Upstream() as upstream:
        settings = {"protocol": "http2", "health_check": CHECK | {"path": "/healthz"}}
        gateway = await start("", upstreams=main(upstream.url, **settings))
        await until(lambda: len(upstream.requests) > 1)
        assert upstream.requests[0].one(b":path") == b"/healthz"
        await unhealthy(gateway, 0)
        upstream.on_end = lambda request: request.respond(status=500)
        await unhealthy(gateway, 1)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"health_check": {"interval": "1s"}}, "main.health_check.path: is required, or grpc"),
        ({"health_check": {"path": "/", "grpc": {}}}, "health_check.grpc: has no effect beside"),
        ({"health_check": {"grpc": {}}}, "health_check.grpc: needs HTTP/2"),
        ({"protocol": "h2"}, "protocol"),
        ({"protocol": "http2", "health_check": {"grpc": {"service": "a b"}}}, "service"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    tmp_path: Path, settings: dict[str, Any], found: str
) -> None:
    text = make_config(tmp_path, upstreams=main("http://127.0.0.1:9", **settings))
    with pytest.raises(ConfigError, match=found):
        parse_config(text, file="test.yaml", environ={})


def test_http2_without_its_engine_is_an_error_and_auto_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.config.upstream_rules.is_available", lambda: False)
    text = make_config(tmp_path, upstreams=main("http://127.0.0.1:9", protocol="auto"))
    parse_config(text, file="test.yaml", environ={})
    text = make_config(tmp_path, upstreams=main("http://127.0.0.1:9", protocol="http2"))
    with pytest.raises(ConfigError, match="pip install ngh2"):
        parse_config(text, file="test.yaml", environ={})
