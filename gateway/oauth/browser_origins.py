"""Which origins have pages that are clients: those of the redirect URIs of registered clients.

A browser asks before it calls, without saying for which client; so they are looked up by origin.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.models import Client, Clock, Record, Store, client_owner
from gateway.oauth.policy import AUTHORIZATION_CODE

BROWSER_ORIGIN = "browser-origin"
MAX_GONE = 20
"""Records of clients that are gone, which one look-up passes over."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class BrowserOrigins:
    """The origins of the redirect URIs of registered clients: records of the store, by origin."""

    def __init__(self, store: Store, *, wall_clock: Clock = time.time) -> None:
        self._store = store
        self._wall_clock = wall_clock

    async def enter(self, client: Client) -> None:
        """Enter those of a client in place of those that it had. Raises
        `StoreUnavailableError`."""
        metadata, owner = metadata_of(client), client_owner(client.client_id)
        await self._store.records.delete_owned_records(BROWSER_ORIGIN, owner)
        if AUTHORIZATION_CODE not in metadata.grant_types:
            return
        for origin in origins_of(metadata.redirect_uris):
            key = f"{origin} {client.client_id}"
            await self._store.records.add_record(Record(BROWSER_ORIGIN, key, owner, b"", None))

    async def know(self, origin: str) -> bool:
        """Whether a client with a redirect URI there is registered. Raises
        `StoreUnavailableError`."""
        records, start = self._store.records, f"{origin} "
        for record in await records.list_records(BROWSER_ORIGIN, after=start, limit=MAX_GONE):
            if not record.key.startswith(start):
                return False
            client = await self._store.clients.get_client(record.key.removeprefix(start))
            if client is not None and not client.is_expired(self._wall_clock()):
                return True
            if client is None:
                await records.delete_record(BROWSER_ORIGIN, record.key)
        return False


def origins_of(redirect_uris: Iterable[str]) -> list[str]:
    """The origins of the web pages among redirect URIs, as browsers write them."""
    found: list[str] = []
    for uri in redirect_uris:
        parts = urlsplit(uri)
        if parts.scheme in {"http", "https"} and parts.hostname:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            is_default = parts.port in {None, _DEFAULT_PORTS[parts.scheme]}
            found.append(f"{parts.scheme}://{host}" + ("" if is_default else f":{parts.port}"))
    return list(dict.fromkeys(found))
