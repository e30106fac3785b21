"""Consents of users: remembered for each client; anything more is asked for again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gateway.oauth.authorization.redirects import choose_redirect, matches
from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.models import Client, Clock, Record, RecordStore, user_owner

CONSENT = "consent"
MAX_REDIRECTS = 10


@dataclass(frozen=True, slots=True)
class _Kept:
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    client_created_at: float
    """A client that was deleted and created again is another client."""
    client_name: str = ""
    """As the page showed it: a client of another name is not the one that was agreed to."""
    redirect_uris: tuple[str, ...] = ()
    """Where the page said that the user would be redirected to."""


class Consents:
    """Remembers consents."""

    def __init__(
        self, records: RecordStore, *, ttl_s: float | None, wall_clock: Clock = time.time
    ) -> None:
        """`ttl_s` is how long a consent is remembered, in seconds; None is for ever."""
        self._records = records
        self._ttl_s = ttl_s
        self._wall_clock = wall_clock

    async def cover(
        self,
        username: str,
        client: Client,
        scopes: Sequence[str],
        audience: Sequence[str],
        *,
        redirect_uri: str,
    ) -> bool:
        """Whether the user agreed to all of this before, and to have it sent there. Raises
        `StoreUnavailableError`."""
        kept = await self._find(username, client)
        if kept is None or not any(matches(known, redirect_uri) for known in kept.redirect_uris):
            return False
        # A token for nothing in particular is good for more than one for a resource.
        is_audience_covered = not kept.audience or (
            bool(audience) and set(audience) <= set(kept.audience)
        )
        return set(scopes) <= set(kept.scopes) and is_audience_covered

    async def knows(self, username: str, client: Client, redirect_uri: str) -> bool:
        """Whether the user agreed to anything that was sent there. Raises
        `StoreUnavailableError`."""
        kept = await self._find(username, client)
        return kept is not None and any(matches(uri, redirect_uri) for uri in kept.redirect_uris)

    async def remember(
        self,
        username: str,
        client: Client,
        scopes: Sequence[str],
        audience: Sequence[str],
        *,
        redirect_uri: str,
    ) -> None:
        """Remember that the user agreed, beside what was agreed to before. Raises
        `StoreUnavailableError`."""
        kept = await self._find(username, client)
        redirect_uris: tuple[str, ...] = (redirect_uri,)
        if kept is not None and kept.audience == tuple(audience):
            scopes = tuple(dict.fromkeys((*kept.scopes, *scopes)))
            known = metadata_of(client).redirect_uris
            registered = (uri for uri in kept.redirect_uris if choose_redirect(known, uri))
            redirect_uris = tuple(dict.fromkeys((*registered, redirect_uri)))[-MAX_REDIRECTS:]
        value = _Kept(
            tuple(scopes), tuple(audience), client.created_at, client.client_name, redirect_uris
        )
        await self._records.put_record(
            Record(
                kind=CONSENT,
                key=_key(username, client),
                owner=user_owner(username),
                value=msgspec.json.encode(value),
                expires_at=None if self._ttl_s is None else self._wall_clock() + self._ttl_s,
            )
        )

    async def _find(self, username: str, client: Client) -> _Kept | None:
        record = await self._records.get_record(CONSENT, _key(username, client))
        if record is None:
            return None
        kept = msgspec.json.decode(record.value, type=_Kept)
        is_same = (kept.client_created_at, kept.client_name) == (
            client.created_at,
            client.client_name,
        )
        return kept if is_same else None


def _key(username: str, client: Client) -> str:
    return f"{client.client_id} {username}"
