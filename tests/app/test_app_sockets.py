"""Listening sockets: bound once, shared out, and closed without losing a connection."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import cast

import pytest
from support.deadlines import scaled, until, within
from support.descriptors import no_descriptor_left
from support.running_gateway import make_config
from support.servers.raw_upstream import RawUpstream

from gateway.addresses import Networks
from gateway.app.gateway import Gateway
from gateway.config import parse_config
from gateway.downstream.acceptor import Acceptor
from gateway.downstream.handshake import Handshake, ProxyRules
from gateway.downstream.sockets import (
    Sockets,
    close_sockets,
    has_waiting,
    open_sockets,
    stop_accepting,
)
from gateway.downstream.systemd import Activated


def listen(shares: list[Sockets]) -> list[socket.socket]:
    for share in shares:
        for opened in share:
            opened.listen()
    return [opened for share in shares for opened in share]


def count_waiting(listening: socket.socket) -> int:
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_every_worker_gets_connections_to_the_same_port() -> None:
    shares = open_sockets("127.0.0.1", 0, workers=3)
    opened = listen(shares)
    addresses = {listening.getsockname() for listening in opened}
    assert len(addresses) == 1
    clients = [socket.create_connection(addresses.copy().pop()) for _ in range(64)]
    waiting = [count_waiting(listening) for listening in opened]
    assert sum(waiting) == 64
    assert all(waiting)
    for client in clients:
        client.close()
    close_sockets(shares)


def test_no_client_is_kept_waiting_before_a_worker_accepts() -> None:
    ((bound,),) = shares = open_sockets("127.0.0.1", 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname())
    close_sockets(shares)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("others", [1, 2])
def test_port_that_others_listen_on_is_in_use(workers: int, others: int) -> None:
    taken = open_sockets("127.0.0.1", 0, workers=others)
    listen(taken)
    port = taken[0][0].getsockname()[1]
    with pytest.raises(OSError, match=rf"\('127.0.0.1', {port}\): address already in use"):
        open_sockets("127.0.0.1", port, workers=workers)
    close_sockets(taken)


def test_host_name_is_bound_at_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
        (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **settings: found)
    shares = open_sockets("several.test", 0, workers=2)
    names = [[opened.getsockname() for opened in share] for share in shares]
    assert [host for host, _ in names[0]] == ["127.0.0.1", "127.0.0.2"]
    assert names[0] == names[1]
    close_sockets(shares)


def test_host_that_does_not_exist_is_reported() -> None:
    with pytest.raises(OSError, match=r"[Nn]ame|[Aa]ddress"):
        open_sockets("no such host", 0)


@pytest.mark.skipif(not socket.has_ipv6, reason="this system has no IPv6")
def test_both_families_have_sockets_of_their_own() -> None:
    try:
        shares = open_sockets("::", 0, workers=2)
    except OSError as error:
        pytest.skip(f"no IPv6 address here: {error}")
    (one,), (two,) = shares
    assert one.getsockname() == two.getsockname()
    for six in (one, two):
        assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), "it would take IPv4, too"
    close_sockets(shares)


class Handshaker(asyncio.Protocol):
    """Says whose connection it is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writable = cast(asyncio.Transport, transport)  # uvloop's is not of this class
        writable.write(b"hello")
        writable.close()


async def handshakes(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with within():
        handshakes = await reader.read()
    writer.close()
    return handshakes


async def test_share_of_another_is_accepted_from_on_demand_and_given_back() -> None:
    shares = open_sockets("127.0.0.1", 0, workers=2)
    listen(shares)
    port = shares[0][0].getsockname()[1]
    acceptor = Acceptor(
        Handshake(Handshaker), dict(enumerate([[s.dup() for s in share] for share in shares], 1))
    )
    await acceptor.begin(1)
    await acceptor.begin(2)
    await acceptor.begin(2)  # told twice is told once
    assert [await handshakes(port) for _ in range(32)] == [b"hello"] * 32
    acceptor.end(2)
    acceptor.end(2)
    # From here on connections wait in the queue of the other, which is open still.
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(32)]
    waiting = 0

    def look() -> bool:
        nonlocal waiting
        waiting += count_waiting(shares[1][0])
        return waiting > 0

    await until(look)
    for client in clients:
        client.close()
    acceptor.close()
    close_sockets(shares)
    with pytest.raises(ConnectionRefusedError):
        await handshakes(port)
    await acceptor.begin(2)  # too late, and no error


async def test_connections_that_the_kernel_has_promised_are_accepted_before_the_end() -> None:
    ((opened,),) = open_sockets("127.0.0.1", 0)
    opened.listen()
    address = opened.getsockname()
    clients = [socket.create_connection(address) for _ in range(16)]
    acceptor = Acceptor(Handshake(Handshaker), {1: [opened]})
    await acceptor.begin(1)
    await acceptor.close_when_empty()
    for client in clients:
        client.settimeout(scaled())
        assert client.recv(100) == b"hello"
        client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_promised_connections_are_waited_for_where_descriptors_are_lacking(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ((opened,),) = open_sockets("127.0.0.1", 0)
    handshake = Handshake(Handshaker, proxies=ProxyRules(Networks.parse([]), takes_others=True))
    acceptor = Acceptor(handshake, {1: [opened]})
    await acceptor.begin(1)
    clients = [socket.create_connection(opened.getsockname()) for _ in range(16)]
    with no_descriptor_left():
        await until(lambda: "no connection can be accepted" in caplog.text)
    assert has_waiting(opened)
    await acceptor.close_when_empty()
    for client in clients:
        client.settimeout(scaled())
        assert await asyncio.to_thread(client.recv, 100) == b"hello"
        client.close()
    await acceptor.stop()


def test_socket_that_stopped_accepting_takes_no_more_connections() -> None:
    ((opened,),) = open_sockets("127.0.0.1", 0)
    opened.listen()
    stop_accepting(opened)
    with pytest.raises(TimeoutError):
        socket.create_connection(opened.getsockname(), timeout=0.2)
    opened.close()


@pytest.mark.parametrize("proxy_protocol", [False, True])
async def test_who_comes_by_ipv4_to_a_socket_for_both_families_is_known_by_that_address(
    tmp_path: Path, upstream: RawUpstream, proxy_protocol: bool
) -> None:
    # As systemd makes one of `ListenStream=8080`.
    listening = socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=8
    )
    listening.setblocking(False)
    networks = ["127.0.0.0/8"]
    text = make_config(
        tmp_path, upstream.url, trusted_proxies=networks,
        listen={"proxy_protocol": {"trusted_proxies": networks}} if proxy_protocol else {},
    )  # fmt: skip
    gateway = Gateway(parse_config(text, file="test.yaml"), activated=Activated(data=[listening]))
    await gateway.start()
    try:
        port = listening.getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if proxy_protocol:
            writer.write(b"PROXY TCP4 127.0.0.9 127.0.0.1 1 2\r\n")
        writer.write(
            b"GET /public HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    finally:
        await gateway.stop()
    (reported,) = upstream.requests[0].all(b"x-forwarded-for")
    assert reported == b"192.0.2.7, " + (b"127.0.0.9" if proxy_protocol else b"127.0.0.1")
