"""Describes the credentials that a route accepts, compiled.

A module of its own, since routes have it, and the stages know routes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

REALM = "gateway"


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """Says where a request has the id and the secret of a client."""

    places: frozenset[str]
    """Of `header`, `query` and `basic`."""
    id_name: str = "client_id"
    secret_name: str = "client_secret"
    id_field: bytes = field(init=False)
    """In lower case."""
    secret_field: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id_field", self.id_name.lower().encode())
        object.__setattr__(self, "secret_field", self.secret_name.lower().encode())


@dataclass(frozen=True, slots=True)
class RouteCredentials:
    """The credentials that a route accepts."""

    takes_bearer: bool
    key_header: bytes = b""
    """The field with an API key, in lower case; empty where none is accepted."""
    secret: SecretSettings | None = None
    """None where no client secret is accepted."""

    @property
    def wanted(self) -> str:
        """Name what is needed, for the text of an error."""
        names = [
            name
            for name, is_accepted in (
                ("bearer token", self.takes_bearer),
                ("API key", self.key_header),
                ("client id and secret", self.secret),
            )
            if is_accepted
        ]
        return f"The {' or '.join(names)}"

    @property
    def challenges(self) -> tuple[str, ...]:
        """Challenges for what is no bearer token (RFC 9110 section 11.6.1). None of these schemes
        but Basic is registered; clients that don't know one skip it."""
        found: tuple[str, ...] = ()
        if self.key_header:
            found = (f'ApiKey realm="{REALM}", in="header", name="{self.key_header.decode()}"',)
        if self.secret is not None:
            if self.secret.places - {"basic"}:
                found += (f'Client-ID-Enforcement realm="{REALM}"',)
            if "basic" in self.secret.places:
                found += (f'Basic realm="{REALM}", charset="UTF-8"',)
        return found
