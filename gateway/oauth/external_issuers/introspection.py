"""Opaque tokens of other issuers: looked up by RFC 7662, then served from the cache."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

from gateway.clock import has_come
from gateway.oauth.errors import InvalidTokenError
from gateway.oauth.external_issuers.claims import is_other_kind, make_token
from gateway.oauth.issuer_metadata import FetchError
from gateway.oauth.jose import Jwt, JwtError
from gateway.oauth.keys.remote import IssuerUnavailableError
from gateway.oauth.models import AccessToken, Clock

MAX_WAITING = 64
"""Lookups that may wait for their response; further ones get 503."""

PostForm = Callable[[str, Mapping[str, str], Mapping[str, str]], Awaitable[object]]
"""Sends a form with headers to a URL, for JSON. Raises `FetchError`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IntrospectionServer:
    """An issuer that is asked about its tokens."""

    name: str
    """What its clients are called by: `NAME:ID`."""
    endpoint: str
    client_id: str
    client_secret: str = field(repr=False)
    audience: frozenset[str]
    """If any are named, a token must be for one of these."""
    token_prefix: str
    """Only tokens that begin so are asked about."""
    default_ttl_s: float
    """How long a token is believed whose introspection response has no `exp`."""


class IntrospectionServers:
    """All issuers that are asked about tokens which are not ours, in order."""

    def __init__(
        self,
        servers: Sequence[IntrospectionServer],
        post_form: PostForm,
        *,
        extra_claims: Collection[str] = (),
        wall_clock: Clock = time.time,
    ) -> None:
        """`extra_claims` are kept of each token, for rules and templates."""
        self._servers = tuple(servers)
        self._post_form = post_form
        self._extra_claims = extra_claims
        self._wall_clock = wall_clock
        self._waiting = 0

    async def find(self, access_token: str) -> AccessToken | None:
        """The token, if one of the servers says that it is active.

        Raises `IssuerUnavailableError` where none says so, and one did not respond, and
        `InvalidTokenError` for a token that is valid later, which nothing must remember as invalid.
        """
        failed = None
        for server in self._servers:
            if not access_token.startswith(server.token_prefix):
                continue
            try:
                if token := await self._fetch(server, access_token):
                    return token
            except FetchError as error:
                _log.warning("introspection server %s: %s", server.name, error)
                failed = failed or IssuerUnavailableError(str(error), who=_name(server))
        if failed is not None:
            raise failed
        return None

    async def _fetch(self, server: IntrospectionServer, access_token: str) -> AccessToken | None:
        if self._waiting >= MAX_WAITING:
            raise IssuerUnavailableError("too many requests wait for it", who=_name(server))
        self._waiting += 1
        try:
            response = await self._post_form(
                server.endpoint,
                {"token": access_token, "token_type_hint": "access_token"},
                {"Authorization": _basic(server)},
            )
        finally:
            self._waiting -= 1
        if not isinstance(response, dict) or response.get("active") is not True:
            return None
        if is_other_kind(response, ("token_use", "token_type", "typ")):
            return None
        return self._accept(server, access_token, response)

    def _accept(
        self, server: IntrospectionServer, access_token: str, response: dict[str, Any]
    ) -> AccessToken | None:
        # Some servers write null for what does not apply.
        claims = Jwt({}, {name: value for name, value in response.items() if value is not None})
        now = self._wall_clock()
        try:
            expires_at, issued_at = claims.time("exp"), claims.time("iat")
            not_before = claims.time("nbf")
        except JwtError as error:
            _log.warning("introspection server %s: %s", server.name, error)
            return None
        if server.audience and not server.audience.intersection(claims.audience):
            return None
        if not has_come(not_before, now):
            raise InvalidTokenError(reason="not_yet_valid")
        return make_token(
            access_token,
            server.name,
            response,
            issued_at=now if issued_at is None else issued_at,
            expires_at=now + server.default_ttl_s if expires_at is None else expires_at,
            extra=self._extra_claims,
        )


def _name(server: IntrospectionServer) -> str:
    return f"The introspection endpoint of issuer {server.name}"


def _basic(server: IntrospectionServer) -> str:
    pair = f"{quote_plus(server.client_id)}:{quote_plus(server.client_secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
