"""TLS 1.3 early data (0-RTT), which may be replayed: never taken, whatever protocol ALPN chooses.

The request of a client that tries arrives after the handshake, once (RFC 8446 section 2.3,
RFC 8470).
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

import pytest
from hpack import Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame
from support.clients.h2_raw import GET, PREFACE
from support.deadlines import until
from support.jose_values import make_certificate
from support.programs import needs
from support.running_gateway import StartGateway
from support.servers.raw_upstream import RawUpstream

H1_REQUEST = b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n"


def request_of(alpn: str) -> bytes:
    """A whole request of a protocol."""
    if alpn != "h2":
        return H1_REQUEST
    head = HeadersFrame(1, flags={"END_HEADERS", "END_STREAM"}, data=Encoder().encode(GET))
    return PREFACE + SettingsFrame(0).serialize() + head.serialize()


class TlsClient:
    """openssl s_client: Python's ssl knows no early data."""

    def __init__(self, port: int, *options: str) -> None:
        self._command = (
            "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", *options,
        )  # fmt: skip
        self.output = b""

    async def __aenter__(self) -> TlsClient:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while piece := await self._process.stdout.read(65536):
            self.output += piece

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    async def shows(self, text: bytes) -> None:
        await until(lambda: text in self.output)

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading


@needs("openssl")
@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
async def test_early_data_is_not_taken(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path, alpn: str
) -> None:
    certificate = make_certificate(tmp_path, "server")
    tls = {"cert": str(certificate.cert), "key": str(certificate.key)}
    gateway = await start(upstream.url, listen={"tls": tls})
    session, early = tmp_path / "session.pem", tmp_path / "early"
    async with TlsClient(gateway.port, "-alpn", alpn, "-sess_out", str(session)) as first:
        await first.shows(f"ALPN protocol: {alpn}".encode())
        await until(session.exists)
    shown = ("openssl", "sess_id", "-in", str(session), "-noout", "-text")
    assert b"Max Early Data: 0" in await asyncio.to_thread(subprocess.check_output, shown)
    early.write_bytes(request_of(alpn))
    resuming = ("-sess_in", str(session), "-early_data", str(early))
    async with TlsClient(gateway.port, "-alpn", alpn, *resuming) as second:
        await second.shows(b"Early data was")
        assert b"Early data was accepted" not in second.output
        assert upstream.requests == []
        second.send(request_of(alpn))
        await until(lambda: len(upstream.requests) == 1)
    assert len(await gateway.logged(1)) == 1
