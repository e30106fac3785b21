"""Requests to the provider and its responses as plain values, and how requests are read:
parameters from where the policy allows them, and the credentials of clients."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import msgspec

from gateway.http.fields import RawHeaders, header_values
from gateway.oauth.authentication.presented import (
    CREDENTIAL_PARAMETERS,
    ClientCredentials,
    read_credentials,
)
from gateway.oauth.errors import InvalidRequestError, OAuthError
from gateway.oauth.parameters import (
    FORM,
    JSON,
    Parameters,
    merge,
    read_form,
    read_headers,
    read_json,
)
from gateway.oauth.policy import ProviderPolicy

Headers = tuple[tuple[str, str], ...]
CREDENTIALS = ("client_id", "client_secret")
NO_STORE: Headers = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


@dataclass(frozen=True, slots=True)
class ProviderOperation:
    """Parameters and responses of a method of an endpoint, for generated documents."""

    summary: str
    response: Any = None
    """Type of the JSON body; None where there is none."""
    status: int = 200
    security: str = ""
    """How callers authenticate: `client`, `registrationToken`, `accessToken`; empty: not at all."""
    form: tuple[str, ...] = ()
    """Parameters in the body; others are ignored."""
    json: Any = None
    """Type of the members in the body."""
    query: Mapping[str, bool] = field(default_factory=dict)
    """Parameters in the query, and whether they must be there."""
    fails: tuple[int, ...] = ()
    """Statuses of errors, beside those that all authenticated operations have."""
    pages: Mapping[int, str] = field(default_factory=dict)
    """Responses that are pages: status and description."""


Operations = Mapping[str, ProviderOperation]
"""By method."""


def methods_of(operations: Operations) -> frozenset[str]:
    """The methods that an endpoint takes: HEAD, too, where it has GET."""
    return frozenset(operations) | ({"HEAD"} if "GET" in operations else frozenset())


class ErrorResponse(TypedDict):
    """An error (RFC 6749 section 5.2)."""

    error: str
    error_description: str


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
    """The provider's response."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    reason: str = ""
    """For the access log: the error code, empty where all went well."""
    client_id: str = ""
    """For the access log."""


def json_response(
    status: int,
    members: Mapping[str, object],
    *,
    headers: Headers = NO_STORE,
    reason: str = "",
    client_id: str = "",
) -> EndpointResponse:
    """A JSON response, kept out of caches unless `headers` say otherwise."""
    return EndpointResponse(
        status,
        (("Content-Type", "application/json"), *headers),
        msgspec.json.encode(members),
        reason,
        client_id,
    )


def error_response(error: OAuthError) -> EndpointResponse:
    """An error as a response (RFC 6749 section 5.2)."""
    return json_response(
        error.status, error.body(), headers=(*NO_STORE, *error.headers), reason=error.reason
    )


def read_authenticated(
    request: EndpointRequest,
    policy: ProviderPolicy,
    names: Sequence[str],
    *,
    outside: Sequence[str] = CREDENTIALS,
    repeatable: Container[str] = (),
    may_be_absent: bool = False,
) -> tuple[Parameters, ClientCredentials]:
    """The parameters of a request by a client, and what it says to prove who it is.

    `names` are the parameters there are; those of `outside` may also be headers, or in the
    query, where the policy takes them there. Others are ignored. `may_be_absent` is as for
    `read_credentials`.

    Raises `InvalidRequestError` and `InvalidClientError`.
    """
    form = read_form(request.body, repeatable=repeatable) if is_type(FORM, request) else {}
    form = {name: value for name, value in form.items() if name in names}
    header = header_parameters(request, policy, outside)
    query = query_parameters(request, policy, outside)
    parameters = merge(*map(_without_credentials, (form, header, query)))
    credentials = read_credentials(
        request.headers,
        policy.credentials_in,
        form=form,
        header=header,
        query=query,
        may_be_absent=may_be_absent,
    )
    return parameters, credentials


def read_anywhere(
    request: EndpointRequest, policy: ProviderPolicy, names: Sequence[str]
) -> Parameters:
    """Parameters from a form, JSON, headers or the query, as far as the policy takes them there.

    Raises `InvalidRequestError`.
    """
    body: Parameters = {}
    if "form" in policy.credentials_in:
        if is_type(JSON, request, FORM):
            body = read_json(request.body, names)
        else:
            body = read_form(request.body)
    elif request.body:
        raise InvalidRequestError("Parameters are not taken from the body here.")
    header = header_parameters(request, policy, names)
    query = query_parameters(request, policy, names)
    return merge(body, header, query)


def header_parameters(
    request: EndpointRequest, policy: ProviderPolicy, names: Sequence[str]
) -> Parameters:
    """The parameters that are given as headers, the MuleSoft way. Raises `InvalidRequestError`."""
    if "header" not in policy.credentials_in:
        if read_headers(request.headers, CREDENTIALS):
            raise InvalidRequestError("Parameters are not taken from headers here.")
        return {}
    return read_headers(request.headers, names)


def query_parameters(
    request: EndpointRequest, policy: ProviderPolicy, names: Sequence[str]
) -> Parameters:
    """The parameters that are given in the query. Raises `InvalidRequestError`."""
    given = read_form(request.query)
    if "query" not in policy.credentials_in:
        if given.keys() & set(names):
            # Reported rather than ignored: a secret in a URL ends up in logs.
            raise InvalidRequestError("Parameters are not taken from the query here.")
        return {}
    return {name: value for name, value in given.items() if name in names}


def is_type(media_type: str, request: EndpointRequest, *others: str) -> bool:
    """Whether there is a body, of this type.

    Raises `InvalidRequestError` for a type that is neither this nor one of `others`.
    """
    values = header_values(request.headers, b"content-type")
    given = values[0].partition(b";")[0].strip().lower().decode("latin-1") if values else ""
    if len(values) > 1:
        raise InvalidRequestError("More than one Content-Type header.")
    if not request.body:
        return False  # Mule's client, and others, send a type with a body of no bytes
    if given == media_type:
        return True
    if given in others:
        return False
    raise InvalidRequestError(f"The content type must be {' or '.join((media_type, *others))}.")


def _without_credentials(parameters: Parameters) -> Parameters:
    return {n: value for n, value in parameters.items() if n not in CREDENTIAL_PARAMETERS}
