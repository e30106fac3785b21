"""Authenticates requests on routes that accept more than bearer tokens: API keys, and the id and
secret of a client on each request.

What was found is cached and authorized as a token is. A request shows one credential: with two, it
would be ambiguous which client it is from (400). What a client proves itself by is not forwarded
(`build_changes` of `gateway.app.build.routes` removes the fields), and never stays in a query.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote_plus

from gateway.downstream.request import Request
from gateway.http.request_head import RequestLine
from gateway.http.target import RequestTarget
from gateway.metrics import Tally
from gateway.oauth.api_keys import is_api_key
from gateway.oauth.authentication.cached_secrets import CachedClientSecrets
from gateway.oauth.bearer import read_bearer
from gateway.oauth.binding.dpop import read_dpop
from gateway.oauth.errors import (
    BearerError,
    InvalidTokenError,
    MalformedTokenError,
    MissingCredentialsError,
    MissingTokenError,
    OAuthError,
)
from gateway.oauth.models import StoreUnavailableError
from gateway.oauth.token_cache import TokenCache
from gateway.proxy.context import RequestContext
from gateway.proxy.route_credentials import RouteCredentials, SecretSettings
from gateway.proxy.router import Router
from gateway.proxy.stages import TokenStages, Waiting, store_down

MAX_VALUE_CHARS = 512
"""What no key, id or secret has: it is not even digested."""


@dataclass(frozen=True, slots=True)
class _Pair:
    client_id: str
    client_secret: str


class CredentialStages:
    """Find the credential of a request, and check whether it may use the route."""

    def __init__(
        self,
        tokens: TokenStages,
        cache: TokenCache,
        secrets: CachedClientSecrets | None,
        decisions: Tally,
    ) -> None:
        self._tokens = tokens
        self._cache = cache
        self._secrets = secrets
        self._decisions = decisions

    def authenticate(self, context: RequestContext) -> Waiting | None:
        """Find out what the credential is; without waiting where it is cached."""
        route = context.route
        assert route is not None
        rules = route.credentials
        if rules is None or route.auth == "none":
            return self._tokens.authenticate(context)
        try:
            key, pair, is_bearer = self._read(context, rules)
            if is_bearer:
                return self._tokens.authenticate(context)
            if key is None and pair is None:
                if route.auth == "optional":
                    return None
                raise MissingCredentialsError(rules.wanted)
            if key is not None and not is_api_key(key):
                raise InvalidTokenError(description="The API key is not valid.")
        except BearerError as error:
            self._decisions[error.reason] += 1
            raise
        if key is not None:
            context.lookup = partial(self._cache.lookup, key)
            context.token = self._cache.cached(key)
        elif pair is not None and self._secrets is not None:
            secrets = self._secrets
            context.lookup = partial(
                secrets.lookup, pair.client_id, pair.client_secret, source=context.request.client
            )
            context.token = secrets.cached(secrets.digest(pair.client_id, pair.client_secret))
        return None if context.token is not None else self._look_up(context, rules)

    def authorize(self, context: RequestContext) -> Waiting | None:
        """Check that the credential may use the route, on every hit of the cache."""
        if context.token is not None:
            context.key_id = context.token.token.key_id
        return self._tokens.authorize(context)

    async def _look_up(self, context: RequestContext, rules: RouteCredentials) -> None:
        """Find the credential in the store. Raises `StoreDownError` where that is unavailable."""
        assert context.lookup is not None
        try:
            context.token = await context.lookup()
        except InvalidTokenError as error:
            self._decisions[error.reason] += 1
            raise InvalidTokenError(
                reason=error.reason, description=f"{rules.wanted} is not valid."
            ) from None
        except OAuthError as error:
            self._decisions[error.reason] += 1
            raise
        except StoreUnavailableError as error:
            self._decisions[error.code] += 1
            raise store_down(error, "credential") from error

    @staticmethod
    def _read(
        context: RequestContext, rules: RouteCredentials
    ) -> tuple[str | None, _Pair | None, bool]:
        """The API key, the pair of id and secret, and whether there is a bearer token in their
        place. Raises `MalformedTokenError`."""
        request = context.request
        key = _one(request.header_values(rules.key_header)) if rules.key_header else None
        pair = None if rules.secret is None else _read_pair(context, rules.secret)
        authorization = request.head.all(b"authorization")
        bearer = _read_bearer(authorization, rules, has_other=key is not None or pair is not None)
        if sum(one is not None for one in (key, pair, bearer)) > 1:
            raise MalformedTokenError("The request authenticates in two ways at once.")
        return key, pair, bearer is not None


def build_authentication(
    router: Router, cache: TokenCache, secrets: CachedClientSecrets | None, decisions: Tally
) -> TokenStages | CredentialStages:
    """Build the stages that find credentials and check them: where no route accepts more than
    bearer tokens, no request pays for the look at others."""
    tokens = TokenStages(cache, decisions)
    if not router.uses_credentials:
        return tokens
    return CredentialStages(tokens, cache, secrets, decisions)


def _read_bearer(
    authorization: Sequence[bytes], rules: RouteCredentials, *, has_other: bool
) -> bytes | None:
    """The field with a bearer token, or with an API key in place of one; None where the route
    accepts none, so that it may be the upstream's affair."""
    if not authorization or not (rules.takes_bearer or rules.key_header):
        return None
    try:
        value = read_bearer(authorization)
    except MissingTokenError:
        takes_dpop = rules.takes_bearer and read_dpop(authorization) is not None
        return authorization[0] if takes_dpop else None
    except MalformedTokenError:
        if rules.takes_bearer:
            raise
        return None
    if rules.takes_bearer or (is_api_key(value) and not has_other):
        return authorization[0]
    return None


def _read_pair(context: RequestContext, settings: SecretSettings) -> _Pair | None:
    """The id and secret of a client, from one of the places that the route allows."""
    request = context.request
    found: list[_Pair | None] = []
    if "header" in settings.places:
        client_id = _one(request.header_values(settings.id_field))
        client_secret = _one(request.header_values(settings.secret_field))
        found.append(_pair(client_id, client_secret))
    if "query" in settings.places and len(request.target.query) > 1:
        client_id = _one_text(request.query_values(settings.id_name))
        client_secret = _one_text(request.query_values(settings.secret_name))
        if client_id is not None or client_secret is not None:
            context.request = _without_query(request, {settings.id_name, settings.secret_name})
        found.append(_pair(client_id, client_secret))
    if "basic" in settings.places:
        found.append(_read_basic(request.head.all(b"authorization")))
    pairs = [one for one in found if one is not None]
    if len(pairs) > 1:
        raise MalformedTokenError("The request authenticates in two ways at once.")
    return pairs[0] if pairs else None


def _pair(client_id: str | None, client_secret: str | None) -> _Pair | None:
    if not client_id or not client_secret:
        return None
    if max(len(client_id), len(client_secret)) > MAX_VALUE_CHARS:
        raise InvalidTokenError
    return _Pair(client_id, client_secret)


def _read_basic(authorization: Sequence[bytes]) -> _Pair | None:
    """HTTP Basic (RFC 7617): nothing in it is form-encoded, other than at the token endpoint."""
    if len(authorization) > 1:
        raise MalformedTokenError("More than one Authorization header.")
    scheme, _, encoded = (authorization[0] if authorization else b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise MalformedTokenError("The Basic credentials are malformed.") from None
    client_id, _, client_secret = decoded.partition(":")
    return _pair(client_id, client_secret)


def _one(values: Sequence[bytes]) -> str | None:
    """The value of a field that may be given once; None where it is absent or empty."""
    if len(values) > 1:
        raise MalformedTokenError("A header field with a credential is given more than once.")
    if not values or not values[0]:
        return None
    return _bounded(values[0].decode("latin-1"))


def _one_text(values: Sequence[str]) -> str | None:
    if len(values) > 1:
        raise MalformedTokenError("A parameter with a credential is given more than once.")
    return _bounded(values[0]) if values and values[0] else None


def _bounded(value: str) -> str:
    if len(value) > MAX_VALUE_CHARS:
        raise InvalidTokenError
    return value


def _without_query(request: Request, names: set[str]) -> Request:
    """The request without some parameters of its query: no later stage, template, mirror or
    upstream sees them."""
    target = request.target
    kept = [
        part
        for part in target.query[1:].split("&")
        if unquote_plus(part.partition("=")[0]) not in names
    ]
    query = f"?{'&'.join(kept)}" if kept else ""
    stripped = RequestTarget(
        target.path,
        query,
        target.authority,
        has_escaped_slash=target.has_escaped_slash,
        unmerged_path=target.unmerged_path,
    )
    onward = f"{request.method} {target.path}{query} HTTP/1.1\r\n".encode("ascii")
    line = RequestLine(request.method, stripped, request.is_http_10, onward)
    host = request.host, request.routing_host
    return Request(line, request.head, request.peer, checked_by=request, host=host)
