"""Rules of routes on the claims of tokens.

A claim is what introspection shows of a token: `client_id`, `scope`, `sub` and the like as they are
known here, `NAME:...` for those of other issuers, and whatever else their issuer says. Of that,
only what rules and templates name is kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gateway.claim_path import ClaimPath, read_values
from gateway.oauth.models import FAMILY_CLAIM, AccessToken

Claims = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """The values that a claim must have."""

    path: ClaimPath
    any_of: frozenset[str] = frozenset()
    """One of them at least, if any are named."""
    all_of: frozenset[str] = frozenset()

    def holds(self, claims: Claims) -> bool:
        """Whether the claims of a token fulfil it. One that is absent has no value."""
        values = read_values(self.path.find(claims))
        return (not self.any_of or not self.any_of.isdisjoint(values)) and self.all_of.issubset(
            values
        )


class ClaimView:
    """Collects of each token the claims that rules and templates name."""

    def __init__(self, names: Collection[str] = (), *, issuer: str = "") -> None:
        """`issuer` is that of tokens which do not name theirs: our own."""
        self.names = frozenset(names) - {FAMILY_CLAIM}
        self._issuer = issuer

    def __call__(self, token: AccessToken) -> Claims:
        """Return the claims of a token, by name."""
        if not self.names:
            return NO_CLAIMS
        known: dict[str, object] = {
            # Ids with a colon are of other issuers; not each of them names itself.
            **({} if ":" in token.client_id else {"iss": self._issuer}),
            "sub": token.client_id,
            **token.extra_claims,
            **token.claims,
            "client_id": token.client_id,
            "scope": token.scope,
            "iat": int(token.issued_at),
        }
        if math.isfinite(token.expires_at):
            known["exp"] = int(token.expires_at)
        return {name: known[name] for name in self.names & known.keys()}


NO_CLAIMS: Claims = {}
