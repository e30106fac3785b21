"""Fetches small JSON documents from other hosts, with bounds on time and size.

No redirects are followed, no cookies kept and no proxy variables read: what is asked is
what the configuration, or a registration that it allows, names.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from gateway.oauth.issuer_metadata import FetchError, NoDocumentError

if TYPE_CHECKING:
    # Imported where it is used: most gateways fetch nothing, and a worker is started in a
    # hurry.
    import aiohttp

TIMEOUT_S = 5.0
MAX_BYTES = 512 * 1024
_ERRORS = (TimeoutError, OSError, ValueError, RuntimeError)
"""What else may come out of a request: of names and text (`UnicodeError`), of a session that is
closed, and of JSON that is nested too deeply (`RecursionError`)."""


class JsonClient:
    """Gets JSON by HTTP. Connections are made when they are first needed."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S, tls: ssl.SSLContext | None = None) -> None:
        self._timeout_s = timeout_s
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> object:
        """The document at a URL. Raises `FetchError`, `NoDocumentError` for another status than
        200."""
        return await self._request("GET", url, headers or {}, None)

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> object:
        """Send a form and return the JSON response. Raises `FetchError`."""
        return await self._request("POST", url, headers, dict(form))

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], form: dict[str, str] | None
    ) -> object:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Not aiohttp's choice where aiodns is installed, which keeps an empty DNS response
                # for an hour.
                connector=aiohttp.TCPConnector(
                    ssl=self._tls or True, limit_per_host=16, resolver=aiohttp.ThreadedResolver()
                ),
            )
        try:
            async with self._session.request(
                method,
                url,
                data=form,
                headers={"Accept": "application/json", **headers},
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise NoDocumentError(f"status {response.status}")
                return msgspec.json.decode(await _read_whole(response.content))
        except msgspec.DecodeError:
            raise FetchError("not JSON") from None
        except (aiohttp.ClientError, *_ERRORS) as error:
            # The kind of the error only: its text may hold what was sent.
            raise FetchError(type(error).__name__) from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def _read_whole(content: aiohttp.StreamReader) -> bytes:
    """Read to the end, however many pieces it comes in. Raises `FetchError` above `MAX_BYTES`."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > MAX_BYTES:
            raise FetchError(f"larger than {MAX_BYTES // 1024} KiB")
    return bytes(body)
