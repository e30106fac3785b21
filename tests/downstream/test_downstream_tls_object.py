"""What encrypts a client's connection: as the standard library's, without calls of Python."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from types import BuiltinMethodType

import pytest
from support.jose_values import make_certificate

from gateway.app.build.tls import listen_tls
from gateway.config import Config


@pytest.fixture
def server_context(tmp_path: Path) -> ssl.SSLContext:
    own = make_certificate(tmp_path, "localhost")
    listen = {"tls": {"cert": str(own.cert), "key": str(own.key)}}
    context = listen_tls(Config.model_validate({"listen": listen}))
    assert context is not None
    return context


class Side:
    """One end of a connection in memory."""

    def __init__(self, context: ssl.SSLContext, *, is_server: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=is_server,
            server_hostname=None if is_server else "localhost",
        )


def carry(sender: Side, receiver: Side) -> None:
    receiver.incoming.write(sender.outgoing.read())


def connect(server_context: ssl.SSLContext) -> tuple[Side, Side]:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    server, client = Side(server_context, is_server=True), Side(trusting, is_server=False)
    for _ in range(2):
        with suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        carry(client, server)
        with suppress(ssl.SSLWantReadError):
            server.tls.do_handshake()
        carry(server, client)
    return server, client


def test_records_of_clients_are_read_and_written_in_c(server_context: ssl.SSLContext) -> None:
    server, _ = connect(server_context)
    for method in (server.tls.read, server.tls.write, server.tls.pending):
        assert isinstance(method, BuiltinMethodType)


def test_data_passes_both_ways_in_all_forms(server_context: ssl.SSLContext) -> None:
    server, client = connect(server_context)
    client.tls.write(b"GET / HTTP/1.1\r\n\r\n")
    carry(client, server)
    assert server.tls.read(3) == b"GET"
    assert server.tls.pending() == 15
    rest = bytearray(100)
    server.tls.read(100, rest)
    assert rest == b" / HTTP/1.1\r\n\r\n" + bytes(85)
    with pytest.raises(ssl.SSLWantReadError):
        server.tls.read(100)
    assert server.tls.write(memoryview(b"HTTP/1.1 204\r\n\r\n")) == 16
    carry(server, client)
    assert client.tls.read(100) == b"HTTP/1.1 204\r\n\r\n"


def test_end_of_the_data_is_seen(server_context: ssl.SSLContext) -> None:
    server, client = connect(server_context)
    with suppress(ssl.SSLWantReadError):
        client.tls.unwrap()
    carry(client, server)
    assert server.tls.read(100) == b""
