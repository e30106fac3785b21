"""Reading requests: parameters from where the policy allows them, and who sends them."""

from __future__ import annotations

from collections.abc import Container, Sequence

from gateway.oauth.authentication.presented import (
    CREDENTIAL_PARAMETERS,
    ClientCredentials,
    read_credentials,
)
from gateway.oauth.endpoints.messages import EndpointRequest
from gateway.oauth.errors import InvalidRequestError
from gateway.oauth.parameters import (
    FORM,
    JSON,
    Parameters,
    header_values,
    merge,
    read_form,
    read_headers,
    read_json,
)
from gateway.oauth.policy import ProviderPolicy

CREDENTIALS = ("client_id", "client_secret")


def read_authenticated(
    request: EndpointRequest,
    policy: ProviderPolicy,
    names: Sequence[str],
    *,
    repeatable: Container[str] = (),
) -> tuple[Parameters, ClientCredentials]:
    """The parameters of a request by a client, and what it says to prove who it is.

    `names` are the parameters that may also be headers, or in the query, where the policy
    takes them there. Raises `InvalidRequestError` and `InvalidClientError`.
    """
    form = read_form(request.body, repeatable=repeatable) if is_type(FORM, request) else {}
    header = header_parameters(request, policy, names)
    query = query_parameters(request, policy, names)
    parameters = merge(*map(_without_credentials, (form, header, query)))
    credentials = read_credentials(
        request.headers, policy.credentials_in, form=form, header=header, query=query
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
            # Told rather than ignored: a secret in a URL ends up in logs.
            raise InvalidRequestError("Parameters are not taken from the query here.")
        return {}
    return {name: value for name, value in given.items() if name in names}


def is_type(media_type: str, request: EndpointRequest, *others: str) -> bool:
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
    return {n: value for n, value in parameters.items() if n not in CREDENTIAL_PARAMETERS}
