"""Handshakes by which a CA validates that a name leads here: tls-alpn-01 (RFC 8737).

A CA offers the protocol `acme-tls/1` alone, and expects a certificate made for it. All other
clients of the name still get the usual one, so the protocol has to be known before a certificate
is chosen, which a callback for the server name is too early for. While a challenge is pending, the
ClientHello is looked at without taking it from the socket: OpenSSL reads it, in a handshake that is
never sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping

ACME_TLS = "acme-tls/1"
MAX_HELLO_BYTES = 16384
PAUSE_S = 0.02
"""Before looking again for the rest of a ClientHello: it comes in another packet."""


class TlsChallenges:
    """The challenges that are to be validated, by name."""

    def __init__(self) -> None:
        self._contexts: Mapping[str, ssl.SSLContext] = {}
        self._probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._probe.sni_callback = self._choose
        self._chosen: ssl.SSLContext | None = None

    def replace(self, contexts: Mapping[str, ssl.SSLContext]) -> None:
        """Serve these from now on. Each has a challenge certificate, and offers `ACME_TLS` only."""
        self._contexts = contexts

    @property
    def is_pending(self) -> bool:
        """Whether there are any."""
        return bool(self._contexts)

    async def find(self, accepted: socket.socket) -> ssl.SSLContext | None:
        """Return the context for a connection that validates a challenge. Raises `OSError`."""
        seen = 0
        while True:
            await readable(accepted)
            try:
                hello = accepted.recv(MAX_HELLO_BYTES, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                continue
            if not hello:
                raise ConnectionResetError
            if len(hello) > seen and self._is_enough(hello):
                return self._chosen
            if len(hello) == MAX_HELLO_BYTES:
                return None
            seen = len(hello)
            await asyncio.sleep(PAUSE_S)

    def _is_enough(self, hello: bytes) -> bool:
        """Read what came of a ClientHello; False where more is to come."""
        self._chosen = None
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(hello)
        handshake = self._probe.wrap_bio(incoming, outgoing, server_side=True)
        try:
            handshake.do_handshake()
        except ssl.SSLWantReadError:
            if not outgoing.pending:
                return False
            if handshake.selected_alpn_protocol() != ACME_TLS:
                self._chosen = None
        except ssl.SSLError:
            self._chosen = None  # no such name, or no ClientHello: not ours to report
        return True

    def _choose(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
    ) -> int | None:
        self._chosen = self._contexts.get((name or "").lower())
        if self._chosen is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        handshake.context = self._chosen
        return None


class ChallengeConnection(asyncio.Protocol):
    """A connection whose handshake was all that it was for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def readable(accepted: socket.socket) -> None:
    """Wait until there is something to read, or the peer has closed."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(accepted.fileno(), _report, ready)
    try:
        await ready
    finally:
        loop.remove_reader(accepted.fileno())


def _report(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
