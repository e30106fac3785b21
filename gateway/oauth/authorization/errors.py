"""What is wrong with an authorization request: told on a page, or to the client.

Whom a request comes from is only known once its client and redirect URI are right. Until
then nothing may be sent anywhere (RFC 6749 section 4.1.2.1, RFC 9700 section 4.11.2).
"""

from __future__ import annotations

from gateway.oauth.errors import InvalidRequestError


class UntrustedRequestError(InvalidRequestError):
    """The client or its redirect URI is wrong: the person is told, and sent nowhere."""


class AuthorizationRefusedError(Exception):
    """The response to the client is an error."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        """A code of RFC 6749 section 4.1.2.1, RFC 8707 section 2, or OpenID Connect Core section
        3.1.2.6."""
        self.description = description
