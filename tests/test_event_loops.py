"""The event loop of tests closes whatever a test left open, and reports it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.event_loops import Loop


def test_transport_that_was_left_open_is_closed_and_reported() -> None:
    loop = Loop()
    mine, peer = socket.socketpair()
    with peer:
        loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=mine))
        with pytest.raises(ResourceWarning, match="unclosed resource <UnixTransport"):
            loop.close()
        assert peer.recv(1) == b""
    assert loop.is_closed()
