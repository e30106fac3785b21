"""Settings of ACME: the names to get certificates for, and the CA."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

ChallengeType = Literal["tls-alpn-01", "http-01"]


@dataclass(frozen=True, slots=True)
class ExternalAccountKey:
    """Binds the account to one that the CA knows already (RFC 8555 section 7.3.4)."""

    key_id: str
    mac_key: str = field(repr=False)
    """base64url."""


@dataclass(frozen=True, slots=True)
class AcmeSettings:
    """Names and their CA."""

    domains: tuple[str, ...]
    directory: str
    """URL."""
    challenge: ChallengeType
    email: str | None = None
    directory_ca: str | None = None
    """File with the CAs of the directory; None for those that the system trusts."""
    external_account: ExternalAccountKey | None = None
    profile: str | None = None

    @property
    def directory_id(self) -> str:
        """A short name of the directory, for keys in the store."""
        return sha256(self.directory.encode()).hexdigest()[:16]
