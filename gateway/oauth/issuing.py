"""Making tokens: their scopes, audience, life and form; and keeping what must be known of them.

RFC 6749 section 3.3 (scope), RFC 8707 (resources), RFC 9068 (JWT access tokens).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.metrics import Metrics
from gateway.oauth.authenticated import AuthenticatedClient
from gateway.oauth.credentials import random_text
from gateway.oauth.errors import (
    InvalidClientError,
    InvalidGrantError,
    InvalidScopeError,
    InvalidTargetError,
)
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.models import (
    FAMILY_CLAIM,
    AccessToken,
    Client,
    ClientGoneError,
    Clock,
    TokenFormat,
    TokenStore,
    digest_token,
)
from gateway.oauth.parameters import split_scope
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.users.tokens import UserTokens
from gateway.oauth.workloads.rules import Workload

WORKLOAD_CLAIM = "workload"
"""Issuer and subject of the workload that a token was issued to."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and its value, which exists only here and in the one reply."""

    access_token: str = field(repr=False)
    token: AccessToken
    expires_in: int
    """Seconds, rounded down, as in RFC 6749 section 5.1."""
    members: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What else the reply says: `refresh_token`, `issued_token_type`..."""
    workload: Workload | None = None
    """Which workload it was issued to, if it was one."""

    @property
    def token_type(self) -> str:
        """How the token is to be shown (RFC 6749 section 7.1, RFC 9449 section 5)."""
        return "DPoP" if "jkt" in self.token.claims.get("cnf", {}) else "Bearer"


class TokenIssuer:
    """Makes access tokens for clients."""

    def __init__(
        self,
        tokens: TokenStore,
        policy: ProviderPolicy,
        signer: SigningKeys,
        metrics: Metrics,
        *,
        user_tokens: UserTokens,
        on_issued: Callable[[str], None] = lambda client_id: None,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
    ) -> None:
        """`on_issued` is called with the id of each client that got a token."""
        self._tokens = tokens
        self._policy = policy
        self._signer = signer
        self._metrics = metrics
        self._user_tokens = user_tokens
        self._on_issued = on_issued
        self._wall_clock = wall_clock
        self._random_text = random_text
        self._audiences = policy.known_audiences

    async def issue(
        self,
        client: AuthenticatedClient,
        *,
        grant_type: str,
        scopes: Sequence[str],
        audience: Sequence[str] = (),
        confirmation: Mapping[str, Any] | None = None,
        claims: Mapping[str, Any] | None = None,
        ttl_s: float | None = None,
        not_after: float | None = None,
        token_format: TokenFormat | None = None,
        members: Mapping[str, Any] | None = None,
        family: str | None = None,
    ) -> IssuedToken:
        """Make a token and keep what it is. `claims` are its `sub`, `act` and the like; one with
        a `username` ends with that user of ours. `family` is the key of the family of refresh
        tokens that it belongs to.

        It ends with the client's registration and at `not_after` (Unix time) at the latest.
        Raises `InvalidClientError` where the client is gone, `TemporarilyUnavailableError` and
        `StoreUnavailableError`.
        """
        registered, now = client.client, self._wall_clock()
        usual = now + (ttl_s or client.token_ttl_s or self._policy.token_ttl_s)
        ends = (usual, registered.expires_at, not_after)
        expires_at = min(end for end in ends if end is not None)
        if expires_at < min(usual, now + 1):
            # It would say `expires_in: 0`.
            raise InvalidGrantError("What the token would be issued for is about to expire.")
        said: dict[str, Any] = dict(claims or {})
        if client.workload is not None:
            said[WORKLOAD_CLAIM] = client.workload.claim
        if audience:
            said["aud"] = list(audience)
        if confirmation:
            said["cnf"] = dict(confirmation)
        if (token_format or self._choose_format(client, audience)) == "jwt":
            said["jti"] = self._random_text(16)
            access_token = await self._sign(registered, said, scopes, now, expires_at)
        else:
            access_token = self._random_text(32)
        if family is not None:
            said[FAMILY_CLAIM] = family  # for the store only, not for the JWT
        token = AccessToken(
            digest=digest_token(access_token),
            client_id=registered.client_id,
            client_name=registered.client_name,
            scopes=tuple(scopes),
            issued_at=now,
            expires_at=expires_at,
            claims=said,
        )
        await self._keep(token, registered.generation)
        self._metrics.provider.tokens_issued.labels(grant_type).inc()
        self._on_issued(registered.client_id)
        return IssuedToken(
            access_token, token, int(expires_at - now), members or {}, client.workload
        )

    async def _keep(self, token: AccessToken, generation: int) -> None:
        username = token.claims.get("username")
        if username is not None:
            await self._user_tokens.enter(username, token)
        try:
            await self._tokens.add_token(token, generation=generation)
        except ClientGoneError:
            raise InvalidClientError from None
        if username is not None and await self._user_tokens.is_orphan(username, token):
            raise InvalidGrantError("The user is gone or disabled.")

    async def _sign(
        self,
        client: Client,
        said: Mapping[str, Any],
        scopes: Sequence[str],
        now: float,
        expires_at: float,
    ) -> str:
        """RFC 9068 section 2.2. A token for nothing in particular is for this provider."""
        audience = said.get("aud", [self._policy.issuer])
        return await self._signer.sign_access_token(
            {
                "sub": client.client_id,
                **said,
                "iss": self._policy.issuer,
                "aud": audience[0] if len(audience) == 1 else audience,
                "client_id": client.client_id,
                "iat": int(now),
                "exp": int(expires_at),
                **({"scope": " ".join(scopes)} if scopes else {}),
            }
        )

    def _choose_format(self, client: AuthenticatedClient, audience: Sequence[str]) -> TokenFormat:
        if client.metadata.access_token_format is not None:
            return client.metadata.access_token_format
        for resource in self._policy.resources:
            names = {self._policy.resource_url(resource), *resource.audiences}
            if resource.token_format is not None and names.intersection(audience):
                return resource.token_format
        return self._policy.token_format

    @property
    def policy(self) -> ProviderPolicy:
        """The rules of the provider."""
        return self._policy

    def choose_scopes(
        self, client: AuthenticatedClient, scope: str | None, *, narrows: bool = False
    ) -> tuple[str, ...]:
        """Choose the requested scopes, or the default (RFC 6749 section 3.3). With `narrows`, those
        that the client can't have are left out, unless none is left: the response says what was
        granted.

        Raises `InvalidScopeError`.
        """
        allowed = client.client.scopes
        requested = split_scope(scope or "")
        if not requested and client.workload is not None:
            requested = tuple(allowed)
        if narrows:
            left = tuple(name for name in requested if name in allowed)
            requested = left or (requested if self._policy.scopes else ())
        if not self._policy.scopes:
            if requested:
                raise InvalidScopeError("This provider does not use scopes.")
            return ()
        if not requested:
            requested = tuple(name for name in self._policy.default_scopes if name in allowed)
            if not requested:
                raise InvalidScopeError("Ask for a scope: there is no default for this client.")
        if not set(requested) <= set(allowed):
            raise InvalidScopeError
        return requested

    def choose_audience(
        self, client: AuthenticatedClient, resources: Sequence[str]
    ) -> tuple[str, ...]:
        """Choose the audience: the requested resources, or those that the client is
        registered for (RFC 8707 section 2). Empty is the gateway without a resource of its own.

        Raises `InvalidTargetError`.
        """
        allowed = client.metadata.audiences
        if not resources:
            return tuple(allowed)
        if not set(resources) <= (set(allowed) or self._audiences):
            raise InvalidTargetError
        return tuple(resources)
