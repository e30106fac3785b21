"""Refresh tokens: begun, used, inspected, ended.

RFC 6749 section 6, RFC 7009 section 2.1 (revocation cascades), RFC 9700 section 4.14 (replay).

Processes race without locks: an access token is made first and then entered into its
family by a swap, which exactly one of many wins. An access token that was handed out is
therefore always in its family, and goes with it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.metrics import Metrics
from gateway.oauth.authentication import AuthenticatedClient
from gateway.oauth.credentials import random_text
from gateway.oauth.errors import (
    InvalidClientError,
    InvalidGrantError,
    TemporarilyUnavailableError,
)
from gateway.oauth.issuing import IssuedToken, TokenIssuer
from gateway.oauth.models import (
    AccessToken,
    Clock,
    Record,
    Store,
    client_owner,
    digest_token,
    user_owner,
)
from gateway.oauth.policy import REFRESH_TOKEN, ProviderPolicy
from gateway.oauth.refresh.family import (
    ID_BYTES,
    REFRESH_FAMILY,
    SECRET_BYTES,
    Family,
    Standing,
    family_key,
    read_family,
)

FAMILY_OF_USER = "refresh-family-of-user"
ATTEMPTS = 20
"""How often a use is retried where others used the same family concurrently."""
PAGE = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A refresh token that its client showed, and that is good."""

    value: str = field(repr=False)
    record: Record
    family: Family

    @property
    def key(self) -> str:
        """The key of its family."""
        return self.record.key


@dataclass(frozen=True, slots=True)
class FamilyState:
    """A family as operators see it."""

    key: str
    """Its name; no secret."""
    family: Family
    expires_at: float
    """Unix time at which it ends unless it is used."""


class RefreshTokens:
    """Looks after families."""

    def __init__(
        self,
        store: Store,
        issuer: TokenIssuer,
        policy: ProviderPolicy,
        metrics: Metrics,
        *,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._policy = policy
        self._rules = policy.refresh
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._random_text = random_text
        self._random_bytes = random_bytes

    def are_for(self, client: AuthenticatedClient) -> bool:
        """Whether this client gets refresh tokens: it must be registered for the grant."""
        return (
            REFRESH_TOKEN in self._policy.grant_types
            and REFRESH_TOKEN in client.metadata.grant_types
        )

    async def begin(
        self,
        client: AuthenticatedClient,
        *,
        grant_type: str,
        scopes: Sequence[str],
        audience: Sequence[str] = (),
        confirmation: Mapping[str, str] | None = None,
        claims: Mapping[str, Any] | None = None,
        username: str | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> IssuedToken:
        """An access token and, where `are_for` says so, the first refresh token of a family, as
        the member `refresh_token`. The family goes with its client and the user.

        `AccessToken.family` of the new token is the key that `end` takes. Raises as
        `TokenIssuer.issue` does.
        """
        is_family = self.are_for(client)
        value = f"{self._random_text(ID_BYTES)}.{self._random_text(SECRET_BYTES)}"
        key = family_key(value) if is_family else None
        issued = await self._issuer.issue(
            client,
            grant_type=grant_type,
            scopes=scopes,
            audience=audience,
            confirmation=confirmation,
            claims=claims,
            members=members,
            family=key,
        )
        if key is None:
            return issued
        token = issued.token
        now = token.issued_at
        family = Family(
            client_id=token.client_id,
            scopes=token.scopes,
            began_at=now,
            used_at=now,
            ends_at=now + self._rules.max_ttl_s,
            current=digest_token(value),
            audience=tuple(audience),
            claims=dict(claims or {}),
            # A confidential client is known by how it authenticates, and may change its key
            # (RFC 9449 section 5, RFC 8705 section 7.1).
            confirmation=dict(confirmation or {}) if client.is_public else {},
            username=username,
            access_tokens=((token.digest, token.expires_at),),
        )
        await self._keep(key, family)
        return replace(issued, members={**issued.members, "refresh_token": value})

    async def _keep(self, key: str, family: Family) -> None:
        link = None
        if family.username is not None:
            link = Record(FAMILY_OF_USER, key, user_owner(family.username), b"", family.ends_at)
            await self._store.records.add_record(link)
        await self._store.records.add_record(family.record(key, self._rules.ttl_s))
        # A concurrent deletion of the client or the user did not see this family yet.
        digest, _ = family.access_tokens[0]
        is_cut_off = await self._store.tokens.get_token(digest) is None
        if link is not None and not is_cut_off:
            is_cut_off = await self._store.records.get_record(link.kind, link.key) is None
        if is_cut_off:
            await self.end(key)
            raise InvalidClientError

    async def show(
        self, client: AuthenticatedClient, value: str, confirmation: Mapping[str, Any]
    ) -> ShownToken:
        """A refresh token of this client, shown with a proof of `confirmation`.

        Raises `InvalidGrantError`, also for a token that was used before, which ends its
        family, and `StoreUnavailableError`.
        """
        shown = await self._find(value)
        family = shown.family
        if family.client_id != client.client.client_id:
            raise InvalidGrantError
        for name, bound_to in family.confirmation.items():
            if confirmation.get(name) != bound_to:
                raise InvalidGrantError("The refresh token is bound to another key.")
        await self._check_standing(shown)
        return shown

    async def _find(self, value: str) -> ShownToken:
        key = family_key(value)
        record = await self._store.records.get_record(REFRESH_FAMILY, key) if key else None
        if record is None:
            raise InvalidGrantError
        family = read_family(record)
        if family.has_ended:
            await self.end(record.key)  # its revocation was interrupted
            raise InvalidGrantError
        return ShownToken(value, record, family)

    async def _check_standing(self, shown: ShownToken) -> Standing:
        standing = shown.family.standing_of(shown.value, 0.0, 0.0)
        if standing is not Standing.CURRENT and self._rules.reuse_grace_s:
            # By one clock for all: another process may have replaced it, a moment ago.
            now = await self._store.records.now()
            standing = shown.family.standing_of(shown.value, now, self._rules.reuse_grace_s)
        if standing is Standing.REUSED:
            client_id = shown.family.client_id
            _log.warning(
                "refresh token reuse detected for client %r; token family revoked", client_id
            )
            self._metrics.provider.refresh_token_reuse.inc()
            await self.end(shown.key)
            raise InvalidGrantError(reason="refresh_token_reused")
        return standing

    async def renew(
        self, client: AuthenticatedClient, shown: ShownToken, issued: IssuedToken
    ) -> IssuedToken:
        """Enter an access token into the family that it was issued from; with the refresh token
        to use from now on, which is another one where they rotate.

        Raises `InvalidGrantError` where the family was used or revoked concurrently,
        `TemporarilyUnavailableError` and `StoreUnavailableError`; then the access token is gone.
        """
        try:
            value = await self._renew(client, shown, issued.token)
        except BaseException:
            await self._store.tokens.revoke_token(issued.token.digest)
            raise
        return replace(issued, members={**issued.members, "refresh_token": value})

    async def _renew(
        self, client: AuthenticatedClient, shown: ShownToken, token: AccessToken
    ) -> str:
        for _ in range(ATTEMPTS):
            standing = await self._check_standing(shown)
            now = self._wall_clock()
            family, value = shown.family, shown.value
            if standing is Standing.REPEATED:
                value = family.successor(value)
            elif self._rotates(client, family):
                rotated_at = await self._store.records.now()
                family = family.rotate(value, self._random_bytes(32), rotated_at)
                value = family.successor(value)
            family, surplus = family.use(token, now)
            for digest in surplus:
                await self._store.tokens.revoke_token(digest)
            record = family.record(shown.key, self._rules.ttl_s)
            if await self._store.records.swap_record(shown.record, record):
                return value
            shown = await self._find(shown.value)
        raise TemporarilyUnavailableError(reason="refresh_token_contended")

    def _rotates(self, client: AuthenticatedClient, family: Family) -> bool:
        # RFC 9700 section 4.14.2: what a public client holds must rotate or be bound.
        return self._rules.strategy == "rotating" or (client.is_public and not family.confirmation)

    async def inspect(self, value: str) -> FamilyState | None:
        """The family of a refresh token that is live, else None. Raises
        `StoreUnavailableError`."""
        try:
            shown = await self._find(value)
        except InvalidGrantError:
            return None
        if shown.family.standing_of(value, self._wall_clock(), 0) is not Standing.CURRENT:
            return None
        return _state(shown.record)

    async def find_family(self, value: str) -> FamilyState | None:
        """The family that a refresh token, old or new, belongs to. Raises
        `StoreUnavailableError`."""
        try:
            return _state((await self._find(value)).record)
        except InvalidGrantError:
            return None

    async def list_families(
        self, client_id: str, *, after: str = "", limit: int = PAGE
    ) -> Sequence[FamilyState]:
        """Up to `limit` families of a client whose key sorts after `after`, in that order.
        Raises `StoreUnavailableError`."""
        records = await self._store.records.list_records(
            REFRESH_FAMILY, after=after, limit=limit, owner=client_owner(client_id)
        )
        return [_state(record) for record in records]

    async def end(self, key: str) -> Family | None:
        """End a family, all its refresh tokens and its access tokens. Returns it, or None where
        there was none. Raises `StoreUnavailableError`; it can then be called again."""
        while (record := await self._store.records.get_record(REFRESH_FAMILY, key)) is not None:
            family = read_family(record)
            if not family.has_ended:
                ended = replace(family, has_ended=True)
                # From here on no access token is entered into it.
                await self._store.records.swap_record(record, replace(record, value=ended.value()))
                continue
            for digest, _ in family.access_tokens:
                await self._store.tokens.revoke_token(digest)
            if family.username is not None:
                await self._store.records.delete_record(FAMILY_OF_USER, key)
            await self._store.records.delete_record(REFRESH_FAMILY, key)
            return family
        return None

    async def end_user(self, username: str) -> int:
        """End all families of a user, who was deleted or has lost all rights before this is
        called. Returns how many there were. Raises `StoreUnavailableError`."""
        ended, after = 0, ""
        while links := await self._store.records.list_records(
            FAMILY_OF_USER, after=after, limit=PAGE, owner=user_owner(username)
        ):
            for link in links:
                ended += await self.end(link.key) is not None
                await self._store.records.delete_record(link.kind, link.key)
                # One that was being begun may have come to be before its link went.
                ended += await self.end(link.key) is not None
            after = links[-1].key
        return ended


def _state(record: Record) -> FamilyState:
    family = read_family(record)
    return FamilyState(record.key, family, record.expires_at or family.ends_at)
