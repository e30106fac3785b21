"""One target of an upstream as the configuration names it, and how a connection to it is made."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from gateway.upstream.settings import UpstreamTimeouts

Protocol = Literal["auto", "http1", "http2"]

Connection = TypeVar("Connection")

Resolve = Callable[[str], Awaitable[list[str]]]
"""Finds the addresses of a name. Raises `OSError` where there are none."""

MakeContext = Callable[[], ssl.SSLContext]
"""Makes a TLS context, or returns one made before. Takes its time: not for the thread of an event
loop. Raises `OSError` where its files can't be used."""

_log = logging.getLogger(__name__)


class Target:
    """A URL that requests are sent to. It has one endpoint for each address of its name."""

    def __init__(
        self,
        url: str,
        timeouts: UpstreamTimeouts,
        *,
        weight: int = 1,
        protocol: Protocol = "http1",
        tls: ssl.SSLContext | None = None,
        http1_tls: MakeContext | None = None,
        server_name: str | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        """`resolve` takes the place of the system's resolver for a name. `tls` is for `https`,
        and needed there; it offers what `protocol` says. Where that is not HTTP/1.1 alone,
        `http1_tls` makes one for connections that need it."""
        parts = urlsplit(url)
        self.url = url
        self.timeouts = timeouts
        self.weight = weight
        self.host = parts.hostname or ""
        """As DNS is asked for it: with a dot at its end, search domains don't count."""
        name = self.host.removesuffix(".")
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._unix_path = parts.path if parts.scheme == "unix" else ""
        if parts.scheme == "https" and tls is None:
            raise ValueError(f"{url} needs a TLS context")
        self._tls = tls if parts.scheme == "https" else None
        self._http1_tls = self._tls if http1_tls is None else None
        self._make_http1_tls = http1_tls
        self.protocol = protocol
        if protocol == "auto" and self._tls is None:
            self.protocol = "http1"  # there is nothing to negotiate with
        # No dot at the end of SNI (RFC 6066 section 3), of a name in a certificate, or of Host.
        wanted = (server_name or name).removesuffix(".")
        self._server_name = wanted if self._tls is not None else None
        self._resolve = resolve
        dot_less = parts.netloc.replace(".:", ":").removesuffix(".")
        self.authority = dot_less.encode("ascii") or b"localhost"
        """The Host of requests that came without one (HTTP/1.0)."""

    def __repr__(self) -> str:
        return f"<Target {self.url}>"

    @property
    def has_name(self) -> bool:
        """Whether it is known by a name that DNS may have addresses for. `localhost` is this
        machine, whatever DNS says (RFC 6761 section 6.3)."""
        name = self.host.removesuffix(".")
        if self._unix_path or name == "localhost" or name.endswith(".localhost"):
            return False
        try:
            ip_address(name)
        except ValueError:
            return True
        return False

    async def dial(
        self, address: str, make_connection: Callable[[], Connection], *, is_http1: bool = True
    ) -> Connection:
        """A new connection to `address`, or to any address of the name where it is empty; with
        `is_http1`, nothing else is offered.

        Raises `OSError`, whatever goes wrong (`ssl.SSLError` and `ssl.CertificateError` are some);
        has no deadline itself.
        """
        try:
            tls = self._tls
            if tls is not None and is_http1:
                if self._http1_tls is None and self._make_http1_tls is not None:
                    self._http1_tls = await asyncio.to_thread(self._make_http1_tls)
                tls = self._http1_tls
            connection: Connection = await self._dial(address, make_connection, tls)
            return connection
        except OSError:
            raise
        except Exception as error:
            # Such as the `UnicodeError` of a name that the idna codec rejects: no OSError.
            _log.warning("connecting to %s failed: %s: %s", self.url, type(error).__name__, error)
            raise OSError(f"{self.url}: {type(error).__name__}") from error

    async def _dial(
        self, address: str, make_connection: Callable[[], Any], tls: ssl.SSLContext | None
    ) -> Any:
        loop = asyncio.get_running_loop()
        if self._unix_path:
            _, connection = await loop.create_unix_connection(make_connection, self._unix_path)
            return connection
        addresses = [address or self.host]
        if not address and self._resolve is not None:
            addresses = await self._resolve(self.host)
        for last, one in enumerate(addresses, start=1 - len(addresses)):
            try:
                _, connection = await loop.create_connection(
                    make_connection,
                    one,
                    self.port,
                    ssl=tls,
                    server_hostname=self._server_name,
                )
            except OSError:
                if last == 0:
                    raise
            else:
                return connection
        raise OSError(f"{self.host} has no address")
