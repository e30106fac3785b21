"""The PROXY protocol: headers as load balancers send them, and all that is not one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.deadlines import duration, within
from support.jose_values import make_certificate
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.downstream.proxy_protocol import (
    SIGNATURE,
    ProxyHeaderReader,
    ProxyProtocolError,
    crc32c,
    end_of_line,
)

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
REQUEST = b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
TRUST = {"proxy_protocol": {"trusted_proxies": ["127.0.0.0/8"]}}


def v2(source: str = "192.0.2.7", *, command: int = 1, tlvs: bytes = b"") -> bytes:
    address = ip_address(source).packed
    family = 0x11 if len(address) == 4 else 0x21
    block = address * 2 + b"\xdc\x04\x01\xbb" + tlvs
    return SIGNATURE + bytes([0x20 | command, family]) + len(block).to_bytes(2, "big") + block


def with_checksum(header: bytes) -> bytes:
    return header[:-4] + crc32c(header).to_bytes(4, "big")


def read(data: bytes, *, step: int = 1000) -> tuple[str | None, bytes]:
    """The address, and what is left for others, where so many bytes come at a time."""
    reader, came, at = ProxyHeaderReader(), 0, 0
    while True:
        came = min(len(data), max(came, at) + step)
        count = min(reader.wanted, came - at)
        if reader.peeks:
            count = end_of_line(data[at : at + count])
        if not count:
            raise ProxyProtocolError("no more")
        header = reader.feed(data[at : at + count])
        at += count
        if header is not None:
            return header.source, data[at:]


SOUND = [
    (V1, "192.0.2.7"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (v2(), "192.0.2.7"),
    (v2("2001:db8::7"), "2001:db8::7"),
    (v2("::ffff:192.0.2.9"), "192.0.2.9"),
    (v2(command=0), None),
    (v2(tlvs=b"\x01\x00\x02h2\x04\x00\x00"), "192.0.2.7"),
    (with_checksum(v2(tlvs=b"\x03\x00\x04\x00\x00\x00\x00")), "192.0.2.7"),
    (SIGNATURE + b"\x20\x00\x00\x00", None),
    (SIGNATURE + b"\x21\x00\x00\x00", None),
    (SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), None),
]


@pytest.mark.parametrize(("header", "source"), SOUND)
def test_header_is_read_to_its_last_byte_however_it_is_cut(
    header: bytes, source: str | None
) -> None:
    for step in range(1, len(header) + 2):
        assert read(header + REQUEST, step=step) == (source, REQUEST), step


@pytest.mark.parametrize(
    "header",
    [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
     b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n", b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
     b"PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n", b"PROXY TCP4 192.0.2.7 192.0.2.8 1 65536\r\n",
     b"PROXY TCP4 192.0.2.7 192.0.2.8 01 2\r\n", b"PROXY TCP4  192.0.2.7 192.0.2.8 1 2\r\n",
     b"PROXY TCP4 192.0.2.07 192.0.2.8 1 2\r\n", b"proxy tcp4 192.0.2.7 192.0.2.8 1 2\r\n",
     b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n", b"PROXY UNKNOWN\x00\r\n",
     SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12), SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
     SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11), SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
     SIGNATURE + b"\x21\x41\x00\x0c" + bytes(12), SIGNATURE + b"\x21\x11\xff\xff" + bytes(65535),
     v2(tlvs=b"\x01\x00"), v2(tlvs=b"\x01\x00\x05abc"), v2(tlvs=b"\x03\x00\x04abcd")],
)  # fmt: skip
def test_anything_else_is_refused(header: bytes) -> None:
    with pytest.raises(ProxyProtocolError):
        read(header)


def test_checksum_is_that_of_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@given(st.one_of(st.binary(max_size=300), st.sampled_from([V1, v2()])), st.binary(max_size=60))
def test_bytes_of_an_unknown_client_end_in_a_header_or_a_rejection(
    front: bytes, rest: bytes
) -> None:
    for data in (front + rest, V1[:12] + front, v2()[:16] + front):
        try:
            source, left = read(data)
        except ProxyProtocolError:
            continue
        assert data.endswith(left)
        assert source is None or ip_address(source)


async def fetch(gateway: RunningGateway, data: bytes) -> bytes:
    return await gateway.send(data)


@pytest.mark.parametrize("header", [V1, v2()])
async def test_address_in_the_header_is_the_clients_everywhere(
    start: StartGateway, upstream: RawUpstream, header: bytes
) -> None:
    gateway = await start(upstream.url, listen=TRUST)
    assert b" 200 OK" in await fetch(gateway, header + REQUEST)
    assert upstream.requests[0].all(b"x-forwarded-for") == [b"192.0.2.7"]
    assert (await gateway.logged(1))[0]["client"] == "192.0.2.7"


async def test_header_comes_before_tls(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    server = make_certificate(tmp_path, "server")
    tls = {"cert": str(server.cert), "key": str(server.key)}
    gateway = await start(upstream.url, listen=TRUST | {"tls": tls})
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(v2())
    await writer.start_tls(
        ssl.create_default_context(cafile=str(server.cert)), server_hostname="localhost"
    )
    writer.write(REQUEST)
    async with within():
        assert b" 200 OK" in await reader.read()
    assert upstream.requests[0].all(b"x-forwarded-for") == [b"192.0.2.7"]
    assert upstream.requests[0].all(b"x-forwarded-proto") == [b"https"]
    writer.close()


async def test_missing_or_slow_header_ends_the_connection_and_is_counted(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, listen=TRUST | {"timeouts": {"head": duration(0.5)}})
    for data in (REQUEST, V1[:20], SIGNATURE):
        client = await gateway.connect()
        await client.send(data)
        with contextlib.suppress(ConnectionResetError):  # it had sent more than was read
            assert await client.read_to_end() == b""
    assert upstream.requests == []
    reason = "proxy_protocol"
    assert await gateway.metric("gateway_connections_refused_total", reason=reason) == 3


async def test_others_are_refused_or_may_not_say_who_they_are(
    start: StartGateway, upstream: RawUpstream
) -> None:
    rules = {"trusted_proxies": ["192.0.2.0/24"]}
    strict = await start(upstream.url, listen={"proxy_protocol": rules})
    client = await strict.connect()
    assert await client.read_to_end() == b""
    open_to_all = await start(upstream.url, listen={"proxy_protocol": rules | {"others": "plain"}})
    assert b" 200 OK" in await fetch(open_to_all, REQUEST)
    assert b" 400 Bad Request" in await fetch(open_to_all, V1 + REQUEST)
    assert upstream.requests[0].all(b"x-forwarded-for") == [b"127.0.0.1"]
