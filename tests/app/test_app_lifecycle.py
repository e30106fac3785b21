"""Start, housekeeping, drain and stop of a gateway in this process."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.deadlines import until, within
from support.jose_values import make_certificate
from support.running_gateway import RunningGateway, StartGateway, make_config
from support.servers.raw_upstream import OK, Conversation, RawUpstream
from support.stores.faults import break_store, mend_store

from gateway.app.gateway import Gateway
from gateway.app.run import has_c_parser
from gateway.config import parse_config
from gateway.oauth.models import StoreError


def make_gateway(directory: Path, **sections: Any) -> Gateway:
    return Gateway(parse_config(make_config(directory, **sections), file="g.yaml"))


async def test_drain_finishes_what_is_in_flight_and_takes_no_more(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    may_respond = asyncio.Event()

    async def respond_late(conversation: Conversation, upstream: RawUpstream) -> None:
        while await conversation.read_head():
            await may_respond.wait()
            await conversation.send(OK)

    upstream.script = respond_late
    client = await gateway.connect()
    await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
    await until(lambda: upstream.open_connections == 1)
    draining = asyncio.create_task(gateway.gateway.drain(delay_s=0, grace_s=5))
    port = gateway.port
    async with within():
        while await can_connect(port):
            await asyncio.sleep(0.01)
    assert not draining.done()
    may_respond.set()
    respond = await client.read_response()
    assert (respond.status, respond.body, respond.header("connection")) == (200, b"ok", "close")
    await draining


async def can_connect(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.transport.abort()
    return True


async def test_readiness_goes_down_first_while_requests_are_served(
    gateway: RunningGateway,
) -> None:
    draining = asyncio.create_task(gateway.gateway.drain(delay_s=0.3, grace_s=5))
    await asyncio.sleep(0)
    async with gateway.session.get(gateway.admin_url("/readyz")) as response:
        assert response.status == 503
        assert (await response.json())["checks"]["draining"] == "draining"
    async with gateway.session.get(gateway.url("/public")) as response:
        assert response.status == 200
    await draining


async def test_request_that_does_not_finish_in_the_grace_is_reported_and_cut(
    gateway: RunningGateway, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    async def say_nothing(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.reader.read()

    upstream.script = say_nothing
    client = await gateway.connect()
    await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
    await until(lambda: upstream.open_connections == 1)
    await gateway.gateway.drain(delay_s=0, grace_s=0.1)
    assert "1 requests did not finish" in caplog.text
    await gateway.gateway.stop()
    assert await client.read_to_end() == b""


async def test_idle_connections_do_not_hold_the_drain_up(gateway: RunningGateway) -> None:
    client = await gateway.connect()
    await client.send(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
    await client.read_response()
    async with within():
        await gateway.gateway.drain(delay_s=0, grace_s=60)


@pytest.mark.parametrize("section", ["listen", "admin"])
async def test_address_in_use_is_reported_and_everything_closed_again(
    tmp_path: Path, section: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        gateway = make_gateway(tmp_path, **{section: {"port": taken.getsockname()[1]}})
        with pytest.raises(OSError, match="address already in use"):
            await gateway.start()
    again = make_gateway(tmp_path)
    await again.start()
    await again.stop()


async def test_store_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        await make_gateway(tmp_path, store=f"sqlite:///{tmp_path}/missing/a.db").start()


async def test_client_that_ends_soon_is_counted_and_warned_of_once(
    start: StartGateway, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start(upstream.url, provider={"client_ttl": "6d"})
    await gateway.create_client("ends-soon")
    gateway_tasks = gateway.gateway.gateway_tasks
    with caplog.at_level(logging.WARNING):
        await gateway_tasks.count_clients()
        await gateway_tasks.count_clients()
    assert caplog.text.count("the registration of client 'ends-soon' expires on") == 1
    assert await gateway.metric("gateway_clients_expiring") == 1
    assert await gateway.metric("gateway_clients") == 1


async def test_expired_tokens_are_purged_without_being_asked(
    start: StartGateway, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.periodic.SKEW_S", 0.0)
    gateway = await start(upstream.url, provider={"token_ttl": "1ms"})
    await gateway.create_client("shop")
    await gateway.get_token("shop")
    async with within():
        while await gateway.metric("gateway_tokens_purged_total") == 0:
            await gateway.gateway.gateway_tasks.purge()


async def test_tokens_survive_a_restart(
    gateway: RunningGateway, start: StartGateway, upstream: RawUpstream
) -> None:
    token = await gateway.token("shop")
    await gateway.stop()
    again = await start(upstream.url)
    headers = {"Authorization": f"Bearer {token}"}
    async with again.session.get(again.url("/api"), headers=headers) as response:
        assert response.status == 200


async def test_store_outage_is_503_for_unknown_tokens_while_cached_ones_go_on(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    known, unseen = await gateway.token("shop"), await gateway.get_token("shop")
    await get(gateway, known, 200)
    break_store(gateway.directory / "gateway.db")
    before = len(upstream.requests)
    response = await get(gateway, unseen, 503)
    assert response.headers["Retry-After"] == "1"
    await get(gateway, "made-up", 503)
    assert len(upstream.requests) == before
    await get(gateway, known, 200)
    mend_store(gateway.directory / "gateway.db")
    await get(gateway, unseen, 200)
    await get(gateway, "made-up", 401)
    labels = {"result": "store_unavailable"}
    assert await gateway.metric("gateway_auth_decisions_total", **labels) == 2


async def get(gateway: RunningGateway, token: str, status: int) -> aiohttp.ClientResponse:
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url("/api"), headers=headers) as response:
        assert response.status == status
        return response


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    made = make_certificate(tmp_path, "localhost", is_ca=True)
    return made.cert, made.key


async def test_tls_on_both_sides(
    start: StartGateway, upstream: RawUpstream, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    tls = {"listen": {"tls": {"cert": str(cert), "key": str(key)}}}
    inner = await start(upstream.url, **tls, store=f"sqlite:///{cert.parent}/inner.db")
    url = f"https://localhost:{inner.port}"
    outer = await start(
        url, **tls, upstreams={"main": {"targets": [url], "tls": {"ca": str(cert)}}}
    )
    context = ssl.create_default_context(cafile=str(cert))
    async with outer.session.get(
        f"https://127.0.0.1:{outer.port}/public/x", ssl=context
    ) as response:
        assert (response.status, await response.text()) == (200, "ok")
    assert upstream.requests[0].all(b"x-forwarded-proto") == [b"https"]


async def test_upstream_whose_certificate_is_not_trusted_is_502(
    start: StartGateway, upstream: RawUpstream, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    inner = await start(
        upstream.url,
        listen={"tls": {"cert": str(cert), "key": str(key)}},
        store=f"sqlite:///{cert.parent}/inner.db",
    )
    url = f"https://localhost:{inner.port}"
    outer = await start(url)
    async with outer.session.get(outer.url("/public")) as response:
        assert response.status == 502
    trusting = await start(
        url,
        upstreams={"main": {"targets": [url], "tls": {"verify": False}}},
        store=f"sqlite:///{cert.parent}/trusting.db",
    )
    async with trusting.session.get(trusting.url("/public")) as response:
        assert response.status == 200
    assert upstream.requests


async def test_unix_socket_upstream(start: StartGateway, tmp_path: Path) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        writer.close()

    path = tmp_path / "upstream.sock"
    server = await asyncio.start_unix_server(respond, path)
    gateway = await start(f"unix://{path}")
    async with gateway.session.get(gateway.url("/public")) as response:
        assert await response.text() == "ok"
    server.close()


def test_requests_are_parsed_in_c() -> None:
    assert has_c_parser()
