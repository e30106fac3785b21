"""What connections may do before they say anything: how many there are, and how TLS begins."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from support.deadlines import duration, until
from support.jose_values import Certificate, make_certificate
from support.running_gateway import RawClient, RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.addresses import source_of
from gateway.downstream import acceptor as acceptor_module
from gateway.downstream.stream import DiscardingStream

REQUEST = b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n"


async def served(client: RawClient) -> int:
    await client.send(REQUEST)
    return (await client.read_response()).status


async def test_source_has_so_many_connections_and_may_have_another_when_one_ends(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen={"max_connections_per_source": 2})
    first, second = await gateway.connect(), await gateway.connect()
    assert (await served(first), await served(second)) == (200, 200)
    third = await gateway.connect()
    assert (await third.read_to_end()).startswith(b"HTTP/1.1 503 ")
    reason = "max_connections_per_source"
    assert await gateway.metric("gateway_connections_refused_total", reason=reason) == 1
    await first.close()
    await until(lambda: gateway.gateway.connections == 1)
    assert await served(await gateway.connect()) == 200


async def test_trusted_proxy_has_as_many_connections_as_it_needs(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        listen={"max_connections_per_source": 1},
        trusted_proxies=["127.0.0.0/8"],
    )
    assert [await served(await gateway.connect()) for _ in range(3)] == [200] * 3


def test_source_is_an_address_or_an_ipv6_network_of_64_bits() -> None:
    assert source_of("192.0.2.1") == "192.0.2.1" == source_of("::ffff:192.0.2.1")
    assert source_of("2001:db8:0:1::1") == source_of("2001:db8:0:1:ffff::2")
    assert source_of("2001:db8:0:1::1") != source_of("2001:db8:0:2::1")


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "server")


async def handshake(gateway: RunningGateway, certificate: Certificate, **limits: object) -> str:
    context = ssl.create_default_context(cafile=str(certificate.cert))
    for name, value in limits.items():
        setattr(context, name, value)
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
    tls = writer.get_extra_info("ssl_object")
    agreed = f"{tls.version()} {tls.selected_alpn_protocol()} {tls.cipher()[0]}"
    writer.close()
    return agreed


async def test_tls_below_the_least_version_is_refused_and_counted(
    start: StartGateway, upstream: RawUpstream, certificate: Certificate
) -> None:
    tls = {"cert": str(certificate.cert), "key": str(certificate.key), "min_version": "1.3"}
    gateway = await start(upstream.url, listen={"tls": tls})
    assert (await handshake(gateway, certificate)).startswith("TLSv1.3 h2 ")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await handshake(gateway, certificate, maximum_version=ssl.TLSVersion.TLSv1_2)
    await until(lambda: gateway.gateway.metrics.data_plane.tls_failures._value.get() == 1)
    assert await gateway.metric("gateway_tls_handshake_failures_total") == 1


async def test_only_the_configured_ciphers_are_agreed_on(
    start: StartGateway, upstream: RawUpstream, certificate: Certificate
) -> None:
    only = "ECDHE-ECDSA-AES256-GCM-SHA384"
    tls = {"cert": str(certificate.cert), "key": str(certificate.key), "ciphers": only}
    gateway = await start(upstream.url, listen={"tls": tls})
    agreed = await handshake(gateway, certificate, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert agreed == f"TLSv1.2 h2 {only}"


async def test_handshake_that_does_not_go_on_is_cut_after_the_deadline_of_a_head(
    start: StartGateway, upstream: RawUpstream, certificate: Certificate
) -> None:
    tls = {"cert": str(certificate.cert), "key": str(certificate.key)}
    gateway = await start(upstream.url, listen={"tls": tls, "timeouts": {"head": duration(0.2)}})
    client = await gateway.connect()
    assert await client.read_to_end() == b""
    assert await gateway.metric("gateway_tls_handshake_failures_total") == 1


async def test_who_begins_many_handshakes_and_ends_none_keeps_no_client_out(
    start: StartGateway,
    upstream: RawUpstream,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceptor_module, "MAX_HANDSHAKES", 5)
    tls = {"cert": str(certificate.cert), "key": str(certificate.key)}
    gateway = await start(upstream.url, listen={"tls": tls})
    silent = [await gateway.connect() for _ in range(20)]
    acceptor = gateway.gateway._data.acceptor
    await until(lambda: acceptor.handshakes == 5)
    for client in silent[:15]:
        assert await client.read_to_end() == b""
    for _ in range(3):
        assert (await handshake(gateway, certificate)).startswith("TLSv1.3")
    assert acceptor.handshakes <= 5
    assert await gateway.metric("gateway_tls_handshake_failures_total") >= 15


def test_stream_without_a_client_has_no_owner_before_its_exchange_begins() -> None:
    assert DiscardingStream().owner is None
