"""The HTTP face of the provider, on plain values: registration, token, validation.

RFC 6749 section 3.2 (token endpoint), RFC 7591 section 3 (registration), RFC 6750
(challenges). The MuleSoft way of passing parameters as headers is one of those that
`credentials_in` allows.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from gateway.metrics import Metrics
from gateway.oauth.errors import (
    InvalidRequestError,
    InvalidTokenError,
    MethodError,
    MissingTokenError,
    OAuthError,
    RegistrationDeniedError,
    TemporarilyUnavailableError,
    TooManyFailuresError,
    UnsupportedGrantTypeError,
)
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import AccessToken, Clock, StoreUnavailableError
from gateway.oauth.parameters import (
    FORM,
    JSON,
    Parameters,
    RawHeaders,
    header_values,
    merge,
    read_credentials,
    read_form,
    read_headers,
    read_json,
)
from gateway.oauth.server import AuthorizationServer, ProviderPolicy
from gateway.oauth.validator import read_bearer

_CREDENTIALS = ("client_id", "client_secret")
_TOKEN_PARAMETERS = (*_CREDENTIALS, "grant_type", "scope")
_REGISTRATION_PARAMETERS = (*_CREDENTIALS, "client_name", "scope")
_NO_STORE = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))

Headers = tuple[tuple[str, str], ...]


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


class ValidToken(Protocol):
    """What a look-up of a valid token yields."""

    @property
    def token(self) -> AccessToken:
        """The token."""


class TokenLookup(Protocol):
    """Looks tokens up, as `BearerValidator` does."""

    async def lookup(self, access_token: str) -> ValidToken:
        """The token. Raises `InvalidTokenError` and `StoreUnavailableError`."""


class ProviderEndpoints:
    """Answers what is asked of the provider's paths."""

    def __init__(
        self,
        server: AuthorizationServer,
        tokens: TokenLookup,
        policy: ProviderPolicy,
        limiter: FailedClientLimiter,
        metrics: Metrics,
        *,
        wall_clock: Clock = time.time,
    ) -> None:
        self._server = server
        self._tokens = tokens
        self._policy = policy
        self._limiter = limiter
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._endpoints: dict[str, tuple[frozenset[str], _Endpoint]] = {
            policy.token_path: (frozenset({"POST"}), self._token),
            policy.create_client_path: (frozenset({"POST"}), self._create_client),
            policy.validate_path: (frozenset({"GET", "HEAD", "POST"}), self._validate),
        }
        self.paths = frozenset(self._endpoints)
        """The canonical paths that belong to the provider, on every host."""

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Answer a request to one of `paths`. Errors of all kinds are answers too."""
        methods, endpoint = self._endpoints[request.path]
        try:
            if request.method not in methods:
                raise MethodError(headers=(("Allow", ", ".join(sorted(methods))),))
            return await endpoint(request)
        except StoreUnavailableError as error:
            return _refuse(TemporarilyUnavailableError(retry_after_s=error.retry_after_s))
        except OAuthError as error:
            if request.path == self._policy.token_path:
                self._metrics.token_errors.labels(error.error).inc()
            return _refuse(error)

    async def _token(self, request: EndpointRequest) -> EndpointResponse:
        policy = self._policy
        form = read_form(request.body) if _is(FORM, request) else {}
        header = self._header_parameters(request, _TOKEN_PARAMETERS)
        query = self._query_parameters(request, _TOKEN_PARAMETERS)
        others = [_without_credentials(source) for source in (form, header, query)]
        parameters = merge(*others)
        grant_type = parameters.get("grant_type")
        if grant_type is None:
            raise InvalidRequestError("grant_type is missing.")
        if grant_type not in policy.grant_types:
            raise UnsupportedGrantTypeError
        credentials = read_credentials(
            request.headers, policy.credentials_in, form=form, header=header, query=query
        )
        issued = await self._server.issue_token(
            credentials.client_id,
            credentials.client_secret,
            parameters.get("scope"),
            request.source,
        )
        return _answer(
            200,
            {
                "access_token": issued.access_token,
                "token_type": "Bearer",
                "expires_in": issued.expires_in,
                "scope": issued.token.scope,
            },
            client_id=credentials.client_id,
        )

    async def _create_client(self, request: EndpointRequest) -> EndpointResponse:
        policy = self._policy
        self._check_registration(request)
        body: Parameters = {}
        if "form" in policy.credentials_in:
            if _is(JSON, request, FORM):
                body = read_json(request.body, _REGISTRATION_PARAMETERS)
            else:
                body = read_form(request.body)
        elif request.body:
            raise InvalidRequestError("Parameters are not taken from the body here.")
        header = self._header_parameters(request, _REGISTRATION_PARAMETERS)
        query = self._query_parameters(request, _REGISTRATION_PARAMETERS)
        parameters = merge(body, header, query)
        scope = parameters.get("scope")
        registered = await self._server.register_client(
            client_id=parameters.get("client_id"),
            client_secret=parameters.get("client_secret"),
            client_name=parameters.get("client_name"),
            scopes=None if scope is None else tuple(dict.fromkeys(scope.split())),
            replace_existing=not policy.fail_if_present,
        )
        client = registered.client
        members: dict[str, object] = {
            "message": "Client created successfully.",
            "client_id": client.client_id,
            "client_secret": registered.client_secret,
            "client_name": client.client_name,
            "client_id_issued_at": int(client.created_at),
            "client_secret_expires_at": int(client.expires_at or 0),
            "grant_types": list(policy.grant_types),
        }
        if policy.scopes:
            members["scope"] = " ".join(client.scopes)
        if registered.is_replacement:
            members["replaced"] = True
        return _answer(201, members, client_id=client.client_id)

    def _check_registration(self, request: EndpointRequest) -> None:
        mode = self._policy.registration_mode
        if mode == "off":
            raise RegistrationDeniedError
        if mode == "open":
            return
        # Guessing the registration token is limited like guessing a secret.
        retry_after_s = self._limiter.retry_after_s(_REGISTRATION, request.source)
        if retry_after_s is not None:
            self._metrics.failed_client_limited.inc()
            raise TooManyFailuresError(retry_after_s)
        given = read_bearer(header_values(request.headers, b"authorization"))
        expected = self._policy.registration_token
        if expected is None or not hmac.compare_digest(given.encode(), expected.encode()):
            self._limiter.fail(_REGISTRATION, request.source)
            raise InvalidTokenError(reason="registration_token")

    async def _validate(self, request: EndpointRequest) -> EndpointResponse:
        try:
            bearer = read_bearer(header_values(request.headers, b"authorization"))
            token = (await self._tokens.lookup(bearer)).token
        except MissingTokenError as error:
            # RFC 6750 section 3.1: without a token there is no error code to tell.
            return _answer(
                error.status, {"active": False}, headers=error.headers, reason=error.reason
            )
        except OAuthError as error:
            members = {"active": False, **error.body()}
            return _answer(error.status, members, headers=error.headers, reason=error.reason)
        return _answer(
            200,
            {
                "active": True,
                "client_id": token.client_id,
                "scope": token.scope,
                "token_type": "Bearer",
                "expires_in": max(0, int(token.expires_at - self._wall_clock())),
                "iat": int(token.issued_at),
                "exp": int(token.expires_at),
            },
            client_id=token.client_id,
        )

    def _header_parameters(self, request: EndpointRequest, names: Sequence[str]) -> Parameters:
        if "header" not in self._policy.credentials_in:
            if read_headers(request.headers, _CREDENTIALS):
                raise InvalidRequestError("Parameters are not taken from headers here.")
            return {}
        return read_headers(request.headers, names)

    def _query_parameters(self, request: EndpointRequest, names: Sequence[str]) -> Parameters:
        given = read_form(request.query)
        if "query" not in self._policy.credentials_in:
            if given.keys() & set(names):
                # Told rather than ignored: a secret in a URL ends up in logs.
                raise InvalidRequestError("Parameters are not taken from the query here.")
            return {}
        return {name: value for name, value in given.items() if name in names}


_Endpoint = Callable[[EndpointRequest], Awaitable[EndpointResponse]]

# Not a client id that anybody can have, since ids hold no space.
_REGISTRATION = "registration token"


def _is(media_type: str, request: EndpointRequest, *others: str) -> bool:
    """Whether the body is of this type; one without a type and without bytes is of none.

    Raises `InvalidRequestError` for a type that is neither this nor one of `others`.
    """
    values = header_values(request.headers, b"content-type")
    given = values[0].partition(b";")[0].strip().lower().decode("latin-1") if values else ""
    if len(values) > 1:
        raise InvalidRequestError("More than one Content-Type header.")
    if given == media_type:
        return True
    if given in others or (not given and not request.body):
        return False
    raise InvalidRequestError(f"The content type must be {' or '.join((media_type, *others))}.")


def _without_credentials(parameters: Parameters) -> Parameters:
    return {name: value for name, value in parameters.items() if name not in _CREDENTIALS}


def _answer(
    status: int,
    members: dict[str, object],
    *,
    headers: Headers = (),
    reason: str = "",
    client_id: str = "",
) -> EndpointResponse:
    return EndpointResponse(
        status,
        (("Content-Type", "application/json"), *_NO_STORE, *headers),
        msgspec.json.encode(members),
        reason,
        client_id,
    )


def _refuse(error: OAuthError) -> EndpointResponse:
    return _answer(error.status, error.body(), headers=error.headers, reason=error.reason)
