"""The end of a TLS connection, where it is the end of a response: RFC 9112 section 9.8."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deadlines import until, within
from support.jose_values import Certificate, make_certificate
from support.running_gateway import StartGateway

GET = b"GET /public HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
OLD_GET = b"GET /public HTTP/1.0\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"


@contextlib.contextmanager
def tls_upstream(
    certificate: Certificate,
    response: bytes,
    *,
    notifies: bool,
    is_gone: threading.Event | None = None,
) -> Iterator[str]:
    """Responds to each request, and ends the connection: with a close_notify, or without. It waits
    for the same of the gateway; with `is_gone`, it sets that instead."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            secured = context.wrap_socket(accepted, server_side=True)
            with secured, contextlib.suppress(OSError):
                secured.recv(65536)
                secured.sendall(response)
                if is_gone is not None:
                    secured.settimeout(0)
                    if notifies:
                        with contextlib.suppress(ssl.SSLWantReadError):
                            secured.unwrap()
                    secured.close()
                    is_gone.set()
                elif notifies:
                    secured.unwrap()
                else:
                    secured.shutdown(socket.SHUT_WR)
                    secured.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


@pytest.mark.parametrize(
    ("head", "notifies", "is_whole"),
    [(ENDLESS, True, True), (ENDLESS, False, False), (SIZED, True, True), (SIZED, False, True)],
)
async def test_response_without_a_length_is_whole_if_its_end_was_announced(
    start: StartGateway, tmp_path: Path, head: bytes, notifies: bool, is_whole: bool
) -> None:
    certificate = make_certificate(tmp_path, "localhost")
    body = b"Z" * 200_000
    with tls_upstream(certificate, head + body, notifies=notifies) as url:
        gateway = await start(url, upstreams={"main": {"targets": [url], "tls": {"verify": False}}})
        received = await gateway.send(GET)
        assert received.count(b"Z") == len(body)
        line = (await gateway.logged(1))[0]
        assert line["status"] == 200
        if is_whole:
            assert "reason" not in line
        else:
            assert not received.endswith(b"0\r\n\r\n")
            assert line["reason"] == "upstream_closed"
            client = await gateway.connect()
            await client.send(OLD_GET)
            with pytest.raises(ConnectionResetError):
                await client.reader.read()


async def test_response_of_very_many_chunks_that_ends_with_its_connection_is_whole(
    start: StartGateway, tmp_path: Path
) -> None:
    """They take longer to read than to arrive: the connection ends before."""
    certificate = make_certificate(tmp_path, "localhost")
    count = 150_000
    response = CHUNKED + b"1\r\nZ\r\n" * count + b"0\r\n\r\n"
    with tls_upstream(certificate, response, notifies=True) as url:
        gateway = await start(url, upstreams={"main": {"targets": [url], "tls": {"verify": False}}})
        received = await gateway.send(GET)
        assert received.count(b"Z") == count
        assert "reason" not in (await gateway.logged(1))[0]


def send_late(port: int) -> socket.socket:
    """Send a request from a socket that takes little before it is read."""
    late = socket.socket()
    late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    late.connect(("127.0.0.1", port))
    late.sendall(GET)
    late.setblocking(False)
    return late


async def count_body(late: socket.socket) -> int:
    """Read to the end."""
    count, loop = 0, asyncio.get_running_loop()
    async with within():
        while piece := await loop.sock_recv(late, 65536):
            count += piece.count(b"Z")
    late.close()
    return count


@pytest.mark.parametrize(("head", "notifies"), [(ENDLESS, True), (SIZED, True), (SIZED, False)])
async def test_response_whose_upstream_is_gone_before_its_client_reads_is_whole(
    start: StartGateway, tmp_path: Path, head: bytes, notifies: bool
) -> None:
    certificate, is_gone = make_certificate(tmp_path, "localhost"), threading.Event()
    body = b"Z" * 3_500_000  # more than all buffers before the gateway's own
    head = head.replace(b"200000", b"%d" % len(body))
    with tls_upstream(certificate, head + body, notifies=notifies, is_gone=is_gone) as url:
        gateway = await start(url, upstreams={"main": {"targets": [url], "tls": {"verify": False}}})
        late = send_late(gateway.port)
        await until(is_gone.is_set)
        assert await count_body(late) == len(body)
        assert "reason" not in (await gateway.logged(1))[0]


@pytest.mark.parametrize("head", [ENDLESS, SIZED])
async def test_client_that_reads_late_receives_all_of_a_response_that_came_with_its_end(
    start: StartGateway, tmp_path: Path, head: bytes
) -> None:
    certificate = make_certificate(tmp_path, "localhost")
    body = b"Z" * 500_000
    head = head.replace(b"200000", b"500000")
    with tls_upstream(certificate, head + body, notifies=True) as url:
        gateway = await start(url, upstreams={"main": {"targets": [url], "tls": {"verify": False}}})
        assert await count_body(send_late(gateway.port)) == len(body)
