"""The variables of templates, filled in for a request.

A value that a client chose can't break out of the line that it is put in: control
characters and what is not ASCII are percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from gateway.oauth.parameters import header_values
from gateway.oauth.validator import CachedToken
from gateway.proxy.request import ClientRequest
from gateway.templates import Template, Variable

VISIBLE = " !#$&'()*+,/:;=?@[]^`{|}~"
_UNFIT = re.compile(r"[^\t -~]")
_SCHEME = re.compile(rb"https?", re.IGNORECASE)


def render(
    template: Template, request: ClientRequest, token: CachedToken | None = None, path: str = ""
) -> str:
    """The text for a request. `path`, where given, stands for the path of the request."""
    parts = [
        part if isinstance(part, str) else _clean(_value(part, request, token, path))
        for part in template
    ]
    return "".join(parts).strip(" \t")


def _clean(value: str) -> str:
    return _UNFIT.sub(lambda unfit: quote(unfit[0], safe=""), value)


def _value(
    variable: Variable, request: ClientRequest, token: CachedToken | None, path: str
) -> str:
    match variable.name:
        case "client_name":
            # As in X-Client-Name: any text, so `%` is encoded, too.
            return quote(token.token.client_name, safe=VISIBLE) if token else ""
        case "scopes":
            return token.token.scope if token else ""
        case "path":
            return path or request.target.path
        case "uri":
            return (path or request.target.path) + request.target.query
        case "header":
            values = header_values(request.raw_headers, variable.argument.encode())
            return ", ".join(value.decode("latin-1") for value in values)
    return _VALUES[variable.name](request)


def _route_name(request: ClientRequest) -> str:
    route = request.outcome.route
    return route.name if route is not None else ""


_VALUES: dict[str, Callable[[ClientRequest], str]] = {
    "client_id": lambda request: request.outcome.client_id,
    "host": lambda request: request.routing_host,
    "method": lambda request: request.method,
    "query": lambda request: request.target.query[1:],
    "request_id": lambda request: request.request_id.decode("ascii"),
    "route": _route_name,
    "scheme": lambda request: client_scheme(request),
    "source": lambda request: request.client,
}


def client_scheme(request: ClientRequest) -> str:
    """`https` or `http`: how the client came, to us or to the trusted proxy in front."""
    connection = request.connection
    if connection.is_trusted:
        claimed = request.head.one(b"x-forwarded-proto")
        if _SCHEME.fullmatch(claimed):
            return claimed.decode("ascii").lower()
    transport = connection.transport
    is_tls = transport is not None and transport.get_extra_info("sslcontext") is not None
    return "https" if is_tls else "http"
