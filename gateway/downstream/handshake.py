"""Handshakes of new connections: the PROXY protocol header, and TLS.

An event loop's own server takes its TLS context once and for all, and counts no connection that is
in a handshake. Here each handshake is bounded and accounted for, and goes by what holds when the
connection comes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from gateway.addresses import Networks, plain_address
from gateway.downstream.proxy_protocol import ProxyHeaderReader, ProxyProtocolError, end_of_line
from gateway.downstream.tls_challenges import ChallengeConnection, TlsChallenges, readable


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """From whom a header of the PROXY protocol is wanted, and believed."""

    networks: Networks
    takes_others: bool = False
    """Whether others may connect, without one; otherwise they are refused."""

    def wants_header(self, peer: str) -> bool:
        """Whether one must come. Raises `ProxyProtocolError` for those who may not connect."""
        if peer in self.networks:
            return True
        if self.takes_others:
            return False
        raise ProxyProtocolError("this peer is no known proxy")


@dataclass(frozen=True, slots=True)
class Handshake:
    """Performs the handshake of a connection, and hands the connection over."""

    make_connection: Callable[[], object]
    """What it makes is an `asyncio.Protocol` by its methods."""
    tls: ssl.SSLContext | None = None
    proxies: ProxyRules | None = None
    """If given, a header of the PROXY protocol comes first."""
    connection_of: Callable[[str], object] | None = None
    """Makes the connection of the client that such a header names."""
    timeout_s: float = 10.0
    challenges: TlsChallenges | None = None
    """If given, handshakes of a CA that validates one are performed by these."""
    on_failure: Callable[[], None] = lambda: None
    """Called for each TLS handshake that fails."""
    on_refusal: Callable[[], None] = lambda: None
    """Called for each connection without the header that it should have."""

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to wait for."""
        return self.tls is not None or self.proxies is not None

    async def perform(self, accepted: socket.socket) -> None:
        """Hand the socket on to a connection, or close it."""
        make: Callable[[], object] = self.make_connection
        loop, tls = asyncio.get_running_loop(), self.tls
        try:
            if self.proxies is not None:
                async with asyncio.timeout(self.timeout_s):
                    client = await _read_proxy_header(accepted, self.proxies)
                if client is not None and self.connection_of is not None:
                    make = partial(self.connection_of, client)
        except (OSError, TimeoutError, ProxyProtocolError):
            self.on_refusal()
            accepted.close()
            return
        except BaseException:
            accepted.close()
            raise
        try:
            if tls is not None and self.challenges is not None and self.challenges.is_pending:
                async with asyncio.timeout(self.timeout_s):
                    challenge = await self.challenges.find(accepted)
                if challenge is not None:
                    make, tls = ChallengeConnection, challenge
            await loop.connect_accepted_socket(
                cast(Callable[[], asyncio.BaseProtocol], make),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=self.timeout_s if tls else None,
            )
        except (OSError, TimeoutError):
            self.on_failure()
            accepted.close()
        except BaseException:
            accepted.close()
            raise


async def _read_proxy_header(accepted: socket.socket, rules: ProxyRules) -> str | None:
    """The client that a load balancer names, None for the peer itself.

    Exactly the header is taken from the socket: what follows is for TLS, or HTTP. Raises
    `ProxyProtocolError` and `OSError`.
    """
    if not rules.wants_header(plain_address(accepted.getpeername()[0])):
        return None
    reader = ProxyHeaderReader()
    while True:
        await readable(accepted)
        count = reader.wanted
        try:
            if reader.peeks:
                count = end_of_line(accepted.recv(count, socket.MSG_PEEK))
            data = accepted.recv(count) if count else b""
        except (BlockingIOError, InterruptedError):
            continue
        if not data:
            raise ProxyProtocolError("the connection ended within the header")
        header = reader.feed(data)
        if header is not None:
            return header.source
