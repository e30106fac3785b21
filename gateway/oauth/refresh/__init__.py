"""Refresh tokens (RFC 6749 section 6): families of them, each one grant of a user's or client's."""

from gateway.oauth.refresh.family import Family
from gateway.oauth.refresh.tokens import FamilyState, RefreshTokens

__all__ = ["Family", "FamilyState", "RefreshTokens"]
