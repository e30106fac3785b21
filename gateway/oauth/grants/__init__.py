"""Grants: what a client shows to get a token. One small class each, behind one interface.

A grant decides what the token says; it knows neither HTTP nor how tokens look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from gateway.oauth.authenticated import AuthenticatedClient
from gateway.oauth.authentication.presented import ClientCredentials
from gateway.oauth.issuing import IssuedToken
from gateway.oauth.parameters import Parameters

__all__ = ["Grant", "GrantRequest", "IdentifyingGrant"]


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """A token request of an authenticated client."""

    client: AuthenticatedClient
    parameters: Parameters = field(repr=False)
    """Those of the request that may be given once, credentials left out."""
    resources: tuple[str, ...] = ()
    """What the token shall be for (RFC 8707)."""
    audiences: tuple[str, ...] = ()
    """What the token shall be for, by the names of RFC 8693."""
    confirmation: Mapping[str, Any] = field(default_factory=dict)
    """What the token is bound to, as its `cnf` claim (RFC 7800)."""
    is_identified: bool = False
    """Whether it was the grant that identified the client."""
    source: str = ""
    """Address of the client."""


class Grant(Protocol):
    """A way to get a token."""

    @property
    def grant_type(self) -> str:
        """Its name (RFC 6749 section 4)."""

    async def issue(self, request: GrantRequest) -> IssuedToken:
        """A token. Raises `OAuthError` and `StoreUnavailableError`."""


@runtime_checkable
class IdentifyingGrant(Grant, Protocol):
    """A grant that can stand for client authentication: it says who the client is."""

    async def identify(
        self, credentials: ClientCredentials, parameters: Parameters
    ) -> AuthenticatedClient | None:
        """The client, where the request proves by nothing else who it is; None where the client
        must authenticate. Raises `OAuthError` and `StoreUnavailableError`."""
