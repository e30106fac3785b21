"""A port that a test's server has left is nobody else's while a gateway may still call it."""

from __future__ import annotations

import errno
import socket

import pytest
from support.servers.raw_upstream import RawUpstream


async def test_port_is_kept_after_its_server_has_stopped() -> None:
    async with RawUpstream() as upstream:
        pass
    with socket.socket() as other, pytest.raises(OSError, match="in use") as refused:
        other.bind(("127.0.0.1", upstream.port))
    assert refused.value.errno == errno.EADDRINUSE
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", upstream.port)) == errno.ECONNREFUSED


async def test_same_server_gets_its_port_again() -> None:
    async with RawUpstream() as upstream:
        pass
    port = upstream.port
    await upstream.start(port)
    await upstream.stop()
    assert upstream.port == port
