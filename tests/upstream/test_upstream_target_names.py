"""Names of targets: a dot at their end, and names that the library for them refuses."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import cast

import pytest
from support.jose_values import make_certificate
from support.servers.raw_upstream import RawUpstream

from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.target import Target


@pytest.mark.parametrize("server_name", [None, "localhost", "localhost."])
async def test_dot_at_the_end_is_for_dns_alone(tmp_path: Path, server_name: str | None) -> None:
    ca = make_certificate(tmp_path, "ca", is_ca=True)
    localhost = make_certificate(tmp_path, "localhost", issuer=ca)
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(localhost.cert, localhost.key)
    context.sni_callback = lambda sock, name, context: names.append(name)
    asked: list[str] = []

    async def resolve(name: str) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"]

    upstream = RawUpstream()
    await upstream.start(tls=context)
    try:
        target = Target(
            f"https://localhost.:{upstream.port}", UpstreamTimeouts(), server_name=server_name,
            tls=ssl.create_default_context(cafile=str(ca.cert)), resolve=resolve,
        )  # fmt: skip
        transport: asyncio.Transport = (await target.dial("", _Connected)).transport
        transport.abort()
    finally:
        await upstream.stop()
    assert (names, asked) == (["localhost"], ["localhost."])
    assert target.authority == b"localhost:%d" % upstream.port
    assert not target.has_name


def test_host_has_no_dot_at_its_end() -> None:
    for url, authority in (("http://a.test.", b"a.test"), ("http://a.test.:81", b"a.test:81")):
        target = Target(url, UpstreamTimeouts())
        assert (target.authority, target.host, target.has_name) == (authority, "a.test.", True)


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".test", "\udcff.test"])
async def test_name_that_is_refused_is_an_address_that_can_not_be_reached(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = Target("http://a.test", UpstreamTimeouts())
    with pytest.raises(OSError, match=r"http://a\.test: Unicode"):
        await target.dial(host, _Connected)
    assert caplog.text.count("connecting to http://a.test failed: Unicode") == 1


class _Connected(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
