"""How targets are connected to: TLS on both sides, unix sockets."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import until
from support.jose_values import Certificate, make_certificate
from support.running_gateway import StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.metrics import Histogram
from gateway.upstream.h1 import UpstreamConnection
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import ResponseSink
from gateway.upstream.target import Target
from gateway.upstream.upstream import Upstream


def server_context(certificate: Certificate, *, client_ca: Certificate | None = None,
                   names: list[str] | None = None) -> ssl.SSLContext:  # fmt: skip
    """TLS of a target; `names` collects the server names that it is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca.cert)
        context.verify_mode = ssl.CERT_REQUIRED

    def keep_name(sock: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if names is not None:
            names.append(name or "")

    context.sni_callback = keep_name
    return context


async def fetch(start: StartGateway, target: str, **settings: Any) -> int:
    main = {"targets": [target], "retries": {"attempts": 0}, **settings}
    gateway = await start(target, upstreams={"main": main})
    async with gateway.session.get(gateway.url("/public")) as response:
        return response.status


async def test_target_with_tls_is_asked_for_its_name_and_checked_against_the_ca(
    start: StartGateway, tmp_path: Path
) -> None:
    ca, other_ca = (
        make_certificate(tmp_path, "ca", is_ca=True),
        make_certificate(tmp_path, "other", is_ca=True),
    )
    localhost = make_certificate(tmp_path, "localhost", issuer=ca)
    names: list[str] = []
    upstream = RawUpstream()
    await upstream.start(tls=server_context(localhost, names=names))
    url = f"https://localhost:{upstream.port}"
    try:
        assert await fetch(start, url, tls={"ca": str(ca.cert)}) == 200
        assert names == ["localhost"]
        assert await fetch(start, url, tls={"ca": str(other_ca.cert)}) == 502
        assert await fetch(start, url) == 502, "the system does not know this CA"
        assert await fetch(start, url, tls={"verify": False}) == 200
    finally:
        await upstream.stop()


async def test_server_name_takes_the_place_of_the_host(start: StartGateway, tmp_path: Path) -> None:
    ca = make_certificate(tmp_path, "ca", is_ca=True)
    shop = make_certificate(tmp_path, "shop", issuer=ca)
    names: list[str] = []
    upstream = RawUpstream()
    await upstream.start(tls=server_context(shop, names=names))
    url = f"https://127.0.0.1:{upstream.port}"
    tls = {"ca": str(ca.cert)}
    try:
        assert await fetch(start, url, tls=tls | {"server_name": "shop.example"}) == 200
        assert names == ["shop.example"]
        assert await fetch(start, url, tls=tls | {"server_name": "stock.example"}) == 502
    finally:
        await upstream.stop()


async def test_target_that_asks_for_a_certificate_is_shown_ours(
    start: StartGateway, tmp_path: Path
) -> None:
    ca = make_certificate(tmp_path, "ca", is_ca=True)
    localhost = make_certificate(tmp_path, "localhost", issuer=ca)
    gateway_certificate = make_certificate(tmp_path, "gateway", issuer=ca)
    upstream = RawUpstream()
    await upstream.start(tls=server_context(localhost, client_ca=ca))
    url = f"https://localhost:{upstream.port}"
    tls = {"ca": str(ca.cert)}
    ours = {"cert": str(gateway_certificate.cert), "key": str(gateway_certificate.key)}
    try:
        assert await fetch(start, url, tls=tls | ours) == 200
        assert await fetch(start, url, tls=tls) == 502
    finally:
        await upstream.stop()


async def test_upstream_that_is_stopped_finishes_what_it_has_and_closes_what_idles() -> None:
    async with RawUpstream() as server:
        target = Target(server.url, UpstreamTimeouts())
        upstream = Upstream("u", [target], durations=Histogram())
        endpoint = upstream.choose("")
        pool = endpoint.pool
        busy, idle = [await pool.open(ResponseSink()) for _ in range(2)]
        assert isinstance(busy, UpstreamConnection)
        assert isinstance(idle, UpstreamConnection)
        pool.add(idle)
        await until(lambda: server.open_connections == 2)
        await upstream.stop()
        await until(lambda: server.open_connections == 1)
        assert busy.is_open
        pool.add(busy)
        await until(lambda: server.open_connections == 0)
        assert upstream.breaker.connections == 0


@pytest.mark.parametrize("balance", ["round_robin", "least_requests"])
async def test_unix_socket_is_a_target_as_any_other(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path, balance: str
) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nunix")
        writer.close()

    path = tmp_path / "app.sock"
    server = await asyncio.start_unix_server(respond, path)
    targets = [f"unix://{path}", upstream.url]
    gateway = await start("", upstreams={"main": {"targets": targets, "balance": balance}})
    texts = set()
    for _ in range(2):
        async with gateway.session.get(gateway.url("/public")) as response:
            texts.add(await response.text())
    assert texts == {"unix", "ok"}
    server.close()
