"""Requests to the provider and its answers, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from gateway.oauth.errors import OAuthError
from gateway.oauth.parameters import RawHeaders

Headers = tuple[tuple[str, str], ...]
NO_STORE: Headers = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """A request to the provider."""

    method: str
    path: str
    query: str = field(repr=False)
    """Without the question mark."""
    headers: RawHeaders = field(repr=False)
    body: bytes = field(repr=False)
    source: str
    """Address of the client."""
    host: str = ""
    """As routes name hosts. For choosing among what the configuration names, never for URLs."""
    certificate: bytes | None = field(default=None, repr=False)
    """The certificate (DER) that the client proved to hold, by its own connection or by the word
    of a trusted proxy."""


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """The provider's answer."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    reason: str = ""
    """For the access log: the error code, empty where all went well."""
    client_id: str = ""
    """For the access log."""


def answer(
    status: int,
    members: Mapping[str, object],
    *,
    headers: Headers = NO_STORE,
    reason: str = "",
    client_id: str = "",
) -> EndpointResponse:
    """A JSON answer, kept out of caches unless `headers` say otherwise."""
    return EndpointResponse(
        status,
        (("Content-Type", "application/json"), *headers),
        msgspec.json.encode(members),
        reason,
        client_id,
    )


def refuse(error: OAuthError) -> EndpointResponse:
    """An error as an answer (RFC 6749 section 5.2)."""
    return answer(
        error.status, error.body(), headers=(*NO_STORE, *error.headers), reason=error.reason
    )
