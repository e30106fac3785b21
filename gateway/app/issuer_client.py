"""Fetches metadata and keys of issuers that have a private CA, or ask for a bearer token.

Both files are read for each fetch, which is rare: tokens of service accounts are replaced every
hour, and authorities are rotated, without a reload.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from gateway.app.build.tls import TlsError, private_context
from gateway.app.json_client import JsonClient
from gateway.oauth.issuer_metadata import FetchError, FetchJson
from gateway.oauth.keys.remote import KeyLocation

MAX_TOKEN_BYTES = 64 * 1024


class IssuerClient:
    """Gets JSON documents as the location of an issuer's keys says."""

    def __init__(self, fetcher: JsonClient) -> None:
        """`fetcher` is for issuers whose CA is one of the system's."""
        self._fetcher = fetcher
        self._private: dict[str, tuple[bytes, JsonClient]] = {}
        """By the file of the CA, with the digest of what was in it."""

    def fetch_from(self, location: KeyLocation) -> FetchJson:
        """Return what fetches documents of an issuer."""
        if location.ca is None and location.token_file is None:
            return self._fetcher.get

        async def fetch(url: str) -> object:
            fetcher = self._fetcher if location.ca is None else await self._client(location.ca)
            headers = {}
            if location.token_file is not None and _may_have_token(location, url):
                token = await asyncio.to_thread(_read_token, location.token_file)
                headers["Authorization"] = f"Bearer {token}"
            return await fetcher.get(url, headers)

        return fetch

    async def close(self) -> None:
        """Close the connections."""
        for _, client in self._private.values():
            await client.close()
        self._private.clear()

    async def _client(self, ca: str) -> JsonClient:
        """Return the client that trusts the authorities in a file; another one once they changed.
        Raises `FetchError`."""
        digest = sha256(await asyncio.to_thread(_read, ca)).digest()
        known = self._private.get(ca)
        if known is not None and known[0] == digest:
            return known[1]
        try:
            client = JsonClient(tls=await asyncio.to_thread(private_context, ca))
        except TlsError as error:
            raise FetchError(str(error)) from None
        self._private[ca] = digest, client
        if known is not None:
            await known[1].close()
        return client


def _may_have_token(location: KeyLocation, url: str) -> bool:
    """Whether the bearer token is for the server of a URL: that which the configuration names or,
    where only a private CA is trusted, any that has a certificate of it."""
    parts, named = urlsplit(url), urlsplit(location.jwks_uri or location.issuer)
    if parts.scheme != "https":
        return False
    return location.ca is not None or parts.netloc == named.netloc


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FetchError(f"{path} can't be read: {error.strerror}") from None


def _read_token(path: str) -> str:
    token = _read(path).strip()
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isascii() or b"\n" in token:
        raise FetchError(f"{path} holds no token")
    return token.decode("ascii")
