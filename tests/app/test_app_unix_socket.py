"""The data plane on a Unix socket, beside its port."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from support.deadlines import scaled, until
from support.jose_values import make_certificate
from support.running_gateway import RawClient, RunningGateway, StartGateway, make_config
from support.servers.raw_upstream import OK, Conversation, RawUpstream

from gateway.app.gateway import Gateway
from gateway.config import parse_config
from gateway.downstream.unix_socket import UnixSocket
from gateway.oauth.models import StoreError

REQUEST = b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n"
CLAIMS = (
    b"GET /public HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.9\r\n"
    b"X-Forwarded-Proto: https\r\n\r\n"
)


@pytest.fixture
def path() -> Iterator[Path]:
    """Short: a path of a socket has some hundred bytes at most."""
    with TemporaryDirectory() as directory:
        yield Path(directory) / "g.sock"


async def connect(gateway: RunningGateway, path: Path) -> RawClient:
    gateway.clients.append(RawClient(*await asyncio.open_unix_connection(str(path))))
    return gateway.clients[-1]


async def get(gateway: RunningGateway, path: Path, request: bytes = REQUEST) -> int:
    client = await connect(gateway, path)
    await client.send(request)
    return (await client.read_response()).status


async def test_requests_come_by_the_unix_socket_and_by_the_port(
    start: StartGateway, upstream: RawUpstream, path: Path
) -> None:
    gateway = await start(upstream.url, listen={"unix": {"path": str(path)}})
    assert await get(gateway, path) == 200
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    (received,) = upstream.requests
    assert received.all(b"x-forwarded-for") == [b"unix"]
    assert received.all(b"forwarded") == [b'for=unknown;host="h";proto=http']
    (line,) = await gateway.logged(1)
    assert line["client"] == "unix"
    async with gateway.session.get(gateway.url("/public")) as response:
        assert response.status == 200
    assert upstream.requests[1].all(b"x-forwarded-for") == [b"127.0.0.1"]
    await gateway.stop()
    assert not path.exists()


async def test_socket_has_the_mode_that_is_asked_for(start: StartGateway, path: Path) -> None:
    await start("http://127.0.0.1:9", listen={"unix": {"path": str(path), "mode": "0606"}})
    assert stat.S_IMODE(path.stat().st_mode) == 0o606


@pytest.mark.parametrize(
    ("trusted", "client"),
    [(["127.0.0.0/8"], b"unix"), (["unix"], b"192.0.2.9, unix"), ([], b"unix")],
)
async def test_what_a_local_peer_says_about_the_client_counts_if_unix_is_trusted(
    start: StartGateway, upstream: RawUpstream, path: Path, trusted: list[str], client: bytes
) -> None:
    gateway = await start(
        upstream.url, listen={"unix": {"path": str(path)}}, trusted_proxies=trusted
    )
    assert await get(gateway, path, CLAIMS) == 200
    (received,) = upstream.requests
    assert received.all(b"x-forwarded-for") == [client]
    proto = b"https" if trusted == ["unix"] else b"http"
    assert received.all(b"x-forwarded-proto") == [proto]
    (line,) = await gateway.logged(1)
    assert line["client"] == client.decode().split(",")[0]


async def test_who_trusts_local_peers_does_not_trust_others_for_it(
    start: StartGateway, upstream: RawUpstream, path: Path
) -> None:
    gateway = await start(
        upstream.url, listen={"unix": {"path": str(path)}}, trusted_proxies=["unix"]
    )
    client = await gateway.connect()
    await client.send(CLAIMS)
    assert (await client.read_response()).status == 200
    assert upstream.requests[0].all(b"x-forwarded-for") == [b"127.0.0.1"]


async def test_unix_socket_is_plain_http_beside_a_port_with_tls(
    start: StartGateway, upstream: RawUpstream, path: Path, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path, "server")
    tls = {"cert": str(certificate.cert), "key": str(certificate.key)}
    gateway = await start(upstream.url, listen={"unix": {"path": str(path)}, "tls": tls})
    assert await get(gateway, path) == 200
    url = gateway.url("/public").with_scheme("https")
    async with gateway.session.get(url, ssl=False) as response:
        assert response.status == 200
    protos = [received.all(b"x-forwarded-proto") for received in upstream.requests]
    assert protos == [[b"http"], [b"https"]]
    assert upstream.requests[0].all(b"forwarded") == [b'for=unknown;host="h";proto=http']


async def test_unix_socket_needs_no_header_of_the_proxy_protocol(
    start: StartGateway, upstream: RawUpstream, path: Path
) -> None:
    rules = {"trusted_proxies": ["127.0.0.0/8"]}
    gateway = await start(
        upstream.url, listen={"unix": {"path": str(path)}, "proxy_protocol": rules}
    )
    assert await get(gateway, path) == 200


async def test_connections_of_the_unix_socket_count_towards_the_cap(
    start: StartGateway, upstream: RawUpstream, path: Path
) -> None:
    gateway = await start(upstream.url, listen={"unix": {"path": str(path)}, "max_connections": 1})
    first = await connect(gateway, path)
    await first.send(REQUEST)
    assert (await first.read_response()).status == 200
    second = await connect(gateway, path)
    assert (await second.read_to_end()).startswith(b"HTTP/1.1 503 ")


def leave_abandoned(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
        abandoned.listen()


async def test_abandoned_socket_is_replaced(
    start: StartGateway, upstream: RawUpstream, path: Path
) -> None:
    leave_abandoned(path)
    gateway = await start(upstream.url, listen={"unix": {"path": str(path)}})
    assert await get(gateway, path) == 200


def make_gateway(directory: Path, path: Path, **sections: Any) -> Gateway:
    text = make_config(directory, listen={"unix": {"path": str(path)}}, **sections)
    return Gateway(parse_config(text, file="g.yaml"))


@pytest.mark.parametrize("backlog", [0, 8])
async def test_socket_that_a_process_listens_on_is_in_use(
    tmp_path: Path, path: Path, backlog: int
) -> None:
    with socket.socket(socket.AF_UNIX) as taken, socket.socket(socket.AF_UNIX) as waiting:
        taken.bind(str(path))
        taken.listen(backlog)
        waiting.connect(str(path))
        with pytest.raises(OSError, match=r"g\.sock: address already in use"):
            await make_gateway(tmp_path, path).start()
        assert path.is_socket()


async def test_file_in_the_place_of_the_socket_is_left_alone(tmp_path: Path, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OSError, match=r"g\.sock: there is something that is no socket"):
        await make_gateway(tmp_path, path).start()
    assert path.read_text() == "precious"


async def test_directory_that_is_missing_is_reported(tmp_path: Path, path: Path) -> None:
    with pytest.raises(OSError, match=r"listen\.unix\.path: .*: no such file or directory"):
        await make_gateway(tmp_path, path.parent / "missing" / "g.sock").start()


async def test_gateway_that_did_not_start_leaves_no_socket(tmp_path: Path, path: Path) -> None:
    gateway = make_gateway(tmp_path, path, store=f"sqlite:///{tmp_path}/missing/a.db")
    with pytest.raises(StoreError):
        await gateway.start()
    assert not path.exists()


def test_socket_that_another_process_put_in_its_place_is_left_alone(path: Path) -> None:
    ours = UnixSocket(str(path), 0o600)
    path.unlink()
    leave_abandoned(path)
    ours.withdraw()
    assert path.is_socket()
    ours.socket.close()
    ours.withdraw()
    assert path.is_socket()


def test_path_is_withdrawn_once(path: Path) -> None:
    ours = UnixSocket(str(path), 0o600)
    ours.withdraw()
    ours.socket.close()
    leave_abandoned(path)  # often with the same inode number
    ours.withdraw()
    assert path.is_socket()


async def test_drain_takes_who_has_connected_and_no_connection_after(
    start: StartGateway, path: Path
) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold(talk: Conversation, upstream: RawUpstream) -> None:
        while await talk.read_head():
            arrived.set()
            await go.wait()
            await talk.send(OK)

    async with RawUpstream(script=hold) as upstream:
        gateway = await start(upstream.url, listen={"unix": {"path": str(path)}})
        in_flight = await connect(gateway, path)
        await in_flight.send(REQUEST)
        await arrived.wait()
        # The kernel has promised these; nobody has accepted them before the drain begins.
        queued = [socket.socket(socket.AF_UNIX) for _ in range(16)]
        for client in queued:
            client.connect(str(path))
            client.sendall(REQUEST)
        draining = asyncio.create_task(gateway.gateway.drain(delay_s=0, grace_s=10))
        await until(lambda: not os.path.lexists(path))
        go.set()
        assert (await in_flight.read_response()).status == 200
        for client in queued:
            client.setblocking(False)
            response = await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(client, 4096), timeout=scaled()
            )
            assert response.startswith(b"HTTP/1.1 200 ")
            client.close()
        await draining
