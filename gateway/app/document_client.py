"""Fetches documents at URLs that any client can name, without becoming a way into networks that
only the gateway reaches.

The addresses of a host are checked after DNS, and those that were checked are the ones that the
connection goes to: a name that resolves to another address a moment later (DNS rebinding) gains
nothing. No redirects are followed, no cookies kept, no proxy variables read. A host that is an
address is rejected: aiohttp would ask no resolver about it.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from gateway.addresses import Networks
from gateway.oauth.client_documents import FetchedDocument
from gateway.oauth.issuer_metadata import FetchError

if TYPE_CHECKING:
    # Imported where it is used: most gateways fetch no documents.
    import aiohttp

TIMEOUT_S = 5.0
MAX_DOCUMENT_BYTES = 5 * 1024
MAX_AT_ONCE = 8
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE | re.ASCII)
_NO_STORE = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?:$|[,\s])", re.IGNORECASE | re.ASCII)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052
_PUBLIC_V6 = ip_network("2000::/3")
"""What is assigned as global unicast (RFC 4291 section 2.4): no site-local addresses, and none in
which a translator on the way finds one of IPv4 (RFC 8215, RFC 2765)."""
_ERRORS = (TimeoutError, OSError, ValueError, RuntimeError)


class DocumentClient:
    """Gets JSON objects by https. Connections are made when they are first needed."""

    def __init__(self, networks: Sequence[str] = (), *, timeout_s: float = TIMEOUT_S) -> None:
        """`networks` are those that may be called although they are not public."""
        self._networks = Networks.parse(networks)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._starting = asyncio.Lock()
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    def reconfigure(self, networks: Sequence[str]) -> None:
        """Call other networks from now on."""
        self._networks = Networks.parse(networks)

    async def fetch(self, url: str) -> FetchedDocument:
        """The document at a URL. Raises `FetchError`."""
        import aiohttp

        host = urlsplit(url).hostname or ""
        if _is_address(host):
            raise FetchError("an address in place of a name")
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                session = await self._start()
                async with session.get(
                    url, headers={"Accept": "application/json"}, allow_redirects=False
                ) as response:
                    return await _read(response)
        except PrivateAddressError as error:
            raise FetchError(str(error)) from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, PrivateAddressError):
                raise FetchError(str(error.os_error)) from None
            raise FetchError(type(error).__name__) from None
        except msgspec.DecodeError:
            raise FetchError("not a JSON object") from None
        except (aiohttp.ClientError, *_ERRORS) as error:
            raise FetchError(type(error).__name__) from None

    def is_allowed(self, address: str) -> bool:
        """Whether an address is public, or in one of the networks."""
        parsed = ip_address(address.partition("%")[0])
        if isinstance(parsed, IPv6Address):
            # The address that a translator on the way would call.
            embedded = IPv4Address(int(parsed) & 0xFFFFFFFF) if parsed in _NAT64 else None
            parsed = parsed.ipv4_mapped or parsed.sixtofour or embedded or parsed
        if str(parsed) in self._networks:
            return True
        if isinstance(parsed, IPv6Address) and parsed not in _PUBLIC_V6:
            return False
        return parsed.is_global and not parsed.is_multicast

    async def _start(self) -> aiohttp.ClientSession:
        async with self._starting:
            if self._session is None:
                self._session = await self._open()
            return self._session

    async def _open(self) -> aiohttp.ClientSession:
        import aiohttp
        from aiohttp.abc import AbstractResolver, ResolveResult

        class CheckedResolver(AbstractResolver):
            """Resolves names, and rejects those with an address that must not be called."""

            def __init__(self) -> None:
                self._resolver = aiohttp.ThreadedResolver()

            async def resolve(
                self, host: str, port: int = 0, family: object = 0
            ) -> list[ResolveResult]:
                """Raises `PrivateAddressError`."""
                found = await self._resolver.resolve(host, port, family)  # type: ignore[arg-type]
                if not found or not all(is_allowed(one["host"]) for one in found):
                    raise PrivateAddressError
                return found

            async def close(self) -> None:
                """Nothing is kept."""

        is_allowed = self.is_allowed
        # It reads the certificates of the system: not for the thread of the event loop.
        tls = await asyncio.to_thread(ssl.create_default_context)
        return aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(
                ssl=tls,
                limit_per_host=2,
                resolver=CheckedResolver(),
                use_dns_cache=False,
                force_close=True,
            ),
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


class PrivateAddressError(OSError):
    """A host has an address that is not public."""

    def __str__(self) -> str:
        return "an address that is not public"


async def _read(response: aiohttp.ClientResponse) -> FetchedDocument:
    """Raises `FetchError` and `msgspec.DecodeError`."""
    if response.status != 200:
        raise FetchError(f"status {response.status}")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise FetchError("a content type other than JSON")
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_DOCUMENT_BYTES:
            raise FetchError(f"larger than {MAX_DOCUMENT_BYTES // 1024} KiB")
    members = msgspec.json.decode(bytes(body), type=dict[str, object])
    return FetchedDocument(members, _max_age(response.headers.get("Cache-Control", "")))


def _max_age(cache_control: str) -> float | None:
    """Seconds for which a document may be kept; None where it does not say."""
    if _NO_STORE.search(cache_control):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None


def _is_address(host: str) -> bool:
    """Whether it is an IP address in any spelling that skips the resolver: `127.1`, `2130706433`.
    No name ends in a number (RFC 3696 section 2)."""
    return ":" in host or host.rstrip(".").rpartition(".")[2].isdecimal()
