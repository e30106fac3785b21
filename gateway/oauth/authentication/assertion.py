"""`private_key_jwt`: a client proves who it is by a JWT that it signed (RFC 7523).

An assertion is good once. Its id is kept until it ends, in the store that all processes
share, so that a copy taken from a log or a wire opens nothing.
"""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

from gateway.clock import CLOCK_SKEW_S, has_come, is_over
from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.jose import Jwt, JwtError, read_public_keys, verify_jwt
from gateway.oauth.keys.remote import RemoteKeys
from gateway.oauth.models import Client, Clock, RecordStore, client_owner
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.single_use import use_once

ASSERTION_ALGORITHMS = ("ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "RS256")
MAX_LIFETIME_S = 3600.0
"""An assertion that is good for longer is refused: its id would have to be kept for as long."""
MAX_ID_CHARS = 512
_TYPES = frozenset({"jwt", "client-authentication+jwt"})
"""What an assertion may call itself, or nothing: what the client signed for another use is none
(RFC 8725 section 3.11)."""
USED_ASSERTION = "used-assertion"


@cache
def _dummy_keys() -> dict[str, Any]:
    """The keys of a client as most are, whose private half is dropped; made when first needed."""
    from joserfc.jwk import ECKey

    key = ECKey.generate_key("P-256", private=False)
    return {"keys": [{**key.as_dict(private=False), "kid": "unknown"}]}


class AssertionVerifier:
    """Verifies client assertions."""

    def __init__(
        self,
        records: RecordStore,
        policy: ProviderPolicy,
        key_source: RemoteKeys,
        *,
        wall_clock: Clock,
    ) -> None:
        self._records = records
        self._audiences = {policy.issuer, policy.url(policy.token_path)}
        self._key_source = key_source
        self._wall_clock = wall_clock

    async def verify(self, client: Client, metadata: ClientMetadata, assertion: str) -> bool:
        """Whether the client signed the assertion, for us, lately, and for the first time.

        Raises `StoreUnavailableError`.
        """
        try:
            proven = await self._verify_signature(metadata, assertion)
            expires_at, assertion_id = proven.time("exp"), proven.text("jti")
            not_before, issued_at = proven.time("nbf"), proven.time("iat")
        except JwtError:
            return False
        now = self._wall_clock()
        if expires_at is None or assertion_id is None or len(assertion_id) > MAX_ID_CHARS:
            return False
        is_current = (
            not is_over(expires_at, now)
            and has_come(expires_at - MAX_LIFETIME_S, now)
            and has_come(not_before, now)
            and has_come(issued_at, now)
        )
        kind = str(proven.header.get("typ", "jwt")).lower().removeprefix("application/")
        is_ours = (
            kind in _TYPES
            and proven.text("iss") == proven.text("sub") == client.client_id
            and bool(self._audiences.intersection(proven.audience))
        )
        if not is_current or not is_ours:
            return False
        return await use_once(
            self._records,
            USED_ASSERTION,
            client.client_id,
            assertion_id,
            until=expires_at + CLOCK_SKEW_S,
            owner=client_owner(client.client_id),
        )

    def verify_in_vain(self, assertion: str) -> None:
        """Do the work of verifying the assertion of a client that has no keys."""
        with contextlib.suppress(JwtError):
            verify_jwt(assertion, read_public_keys(_dummy_keys()), ASSERTION_ALGORITHMS)

    async def _verify_signature(self, metadata: ClientMetadata, assertion: str) -> Jwt:
        """By the keys that the client registered, or published behind its `jwks_uri`."""
        if metadata.jwks is None and metadata.jwks_uri is not None:
            return await self._key_source.verify(metadata.jwks_uri, assertion, ASSERTION_ALGORITHMS)
        return verify_jwt(assertion, read_public_keys(metadata.jwks), ASSERTION_ALGORITHMS)
