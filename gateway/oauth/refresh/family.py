"""A family: all refresh tokens that followed from one grant, and its access tokens.

A refresh token is `ID.SECRET`. The id, 128 random bits, finds the family also by a token
that was replaced long ago; the secret, 256, distinguishes its tokens. Kept
are the digest of the id, as the key, and those of the newest token and the one before it.

The token that replaces another is not random but computed from it, with a random salt
that only the store knows. So a client whose response was lost can be given the very same
response once more, though it is not stored: there is never more than one live token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import msgspec

from gateway.clock import CLOCK_SKEW_S, is_over, is_within
from gateway.oauth.models import AccessToken, Record, client_owner, digest_token

REFRESH_FAMILY = "refresh-family"
MAX_ACCESS_TOKENS = 50
"""Live access tokens of a family; with one more, the oldest is revoked."""
ID_BYTES = 16
SECRET_BYTES = 32
# Base64url of so many bytes; no access token of ours looks like that, and no JWT.
_REFRESH_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}")


class Standing(Enum):
    """State of a token within its family."""

    CURRENT = "current"
    REPEATED = "repeated"
    """It was replaced a moment ago, and what replaced it was not used yet."""
    REUSED = "reused"
    """It was replaced: either it or what came of it is in the wrong hands."""


@dataclass(frozen=True, slots=True)
class Family:
    """Stored state of a family. Times are Unix times in seconds."""

    client_id: str
    scopes: tuple[str, ...]
    """What was granted; an access token may have fewer."""
    began_at: float
    used_at: float
    ends_at: float
    """The end of the whole family, however often it is used."""
    current: bytes = field(repr=False)
    """Digest of the one token that is live."""
    audience: tuple[str, ...] = ()
    claims: dict[str, Any] = field(default_factory=dict, hash=False)
    """What each access token says beside scopes, audience and confirmation: `sub`, `username`..."""
    confirmation: dict[str, str] = field(default_factory=dict, hash=False)
    """The key or the certificate that must come with the token, as `cnf` (RFC 7800)."""
    username: str | None = None
    previous: bytes = field(default=b"", repr=False)
    """Digest of the token that `current` replaced."""
    salt: bytes = field(default=b"", repr=False)
    """What `current` was computed with."""
    rotated_at: float = 0.0
    access_tokens: tuple[tuple[bytes, float], ...] = field(default=(), repr=False)
    """Digest and end of each, oldest first."""
    has_ended: bool = False
    """Being revoked: its access tokens are going, then this goes."""

    def standing_of(self, value: str, now: float, grace_s: float) -> Standing:
        """Return the state of a token in this family. Every token with its id that is not the
        newest one is an old one: no other party knows the id."""
        digest = digest_token(value)
        if hmac.compare_digest(digest, self.current):
            return Standing.CURRENT
        is_previous = hmac.compare_digest(digest, self.previous)
        # Another process may have replaced it, whose clock is ahead of ours.
        skew_s = max(CLOCK_SKEW_S, grace_s)
        if is_previous and grace_s and is_within(self.rotated_at, now, grace_s, skew_s):
            return Standing.REPEATED
        return Standing.REUSED

    def rotate(self, value: str, salt: bytes, now: float) -> Family:
        """The family after `value`, its current token, was replaced."""
        rotated = replace(self, salt=salt, previous=self.current, rotated_at=now)
        return replace(rotated, current=digest_token(rotated.successor(value)))

    def successor(self, value: str) -> str:
        """The token that replaced `value`."""
        family_id, _, _ = value.partition(".")
        secret = hmac.digest(self.salt, value.encode(), hashlib.sha256)
        return f"{family_id}.{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}"

    def use(self, token: AccessToken, now: float) -> tuple[Family, Sequence[bytes]]:
        """The family after an access token was issued from it, and the digests of those that
        are too many."""
        live = [kept for kept in self.access_tokens if not is_over(kept[1], now)]
        live.append((token.digest, token.expires_at))
        surplus = [digest for digest, _ in live[:-MAX_ACCESS_TOKENS]]
        used = replace(self, used_at=now, access_tokens=tuple(live[-MAX_ACCESS_TOKENS:]))
        return used, surplus

    def value(self) -> bytes:
        """As the value of a record."""
        return msgspec.json.encode(self)

    def record(self, key: str, ttl_s: float) -> Record:
        """As the store keeps it. It ends where it is not used for `ttl_s`."""
        return Record(
            kind=REFRESH_FAMILY,
            key=key,
            owner=client_owner(self.client_id),
            value=self.value(),
            expires_at=min(self.used_at + ttl_s, self.ends_at),
        )


def read_family(record: Record) -> Family:
    """The reverse of `Family.record`."""
    return msgspec.json.decode(record.value, type=Family)


def family_key(value: str) -> str | None:
    """The key of the family that a token belongs to; None for what can't be a refresh token."""
    if not _REFRESH_TOKEN.fullmatch(value):
        return None
    return digest_token(value.partition(".")[0]).hex()
