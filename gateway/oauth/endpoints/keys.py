"""`/jwks.json`: the keys by which others verify our tokens (RFC 7517 section 5)."""

from __future__ import annotations

from gateway.oauth.endpoints.discovery import CACHEABLE
from gateway.oauth.endpoints.messages import EndpointRequest, EndpointResponse, answer
from gateway.oauth.keys.signing import SigningKeys

JWKS = "/jwks.json"


class KeysEndpoint:
    """Publishes the public keys."""

    methods = frozenset({"GET", "HEAD"})

    def __init__(self, signing_keys: SigningKeys) -> None:
        self._signing_keys = signing_keys

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `StoreUnavailableError`."""
        return answer(200, await self._signing_keys.jwks(), headers=CACHEABLE)
