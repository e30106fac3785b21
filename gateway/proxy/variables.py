"""The variables of templates, filled in for a request.

A value that a client chose can't break out of the line that it is put in: control
characters and what is not ASCII are percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from gateway.downstream.request import ClientRequest
from gateway.oauth.access import CachedToken
from gateway.oauth.parameters import header_values
from gateway.templates import Template, Variable

VISIBLE = " !#$&'()*+,/:;=?@[]^`{|}~"
_UNFIT = re.compile(r"[^\t -~]")


class _Context(NamedTuple):
    """What variables are about."""

    request: ClientRequest
    token: CachedToken | None
    path: str


def render(
    template: Template, request: ClientRequest, token: CachedToken | None = None, path: str = ""
) -> str:
    """The text for a request. `path`, where given, stands for the path of the request."""
    about = _Context(request, token, path or request.target.path)
    parts = [part if isinstance(part, str) else _value(part, about) for part in template]
    return "".join(parts).strip(" \t")


def _value(variable: Variable, about: _Context) -> str:
    if variable.name == "header":
        values = header_values(about.request.raw_headers, variable.argument.encode())
        value = ", ".join(value.decode("latin-1") for value in values)
    else:
        value = _VALUES[variable.name](about)
    return _UNFIT.sub(lambda unfit: quote(unfit[0], safe=""), value)


def _client_name(about: _Context) -> str:
    # As in X-Client-Name: any text, so `%` is encoded, too.
    return quote(about.token.token.client_name, safe=VISIBLE) if about.token else ""


def _request_id(about: _Context) -> str:
    return about.request.request_id.decode("ascii")


def _route(about: _Context) -> str:
    route = about.request.context.route
    return route.name if route is not None else ""


def _source(about: _Context) -> str:
    return about.request.client


_VALUES: dict[str, Callable[[_Context], str]] = {
    "client_id": lambda about: about.request.context.client_id,
    "client_name": _client_name,
    "host": lambda about: about.request.routing_host,
    "method": lambda about: about.request.method,
    "path": lambda about: about.path,
    "query": lambda about: about.request.target.query[1:],
    "request_id": _request_id,
    "route": _route,
    "scheme": lambda about: about.request.scheme,
    "scopes": lambda about: about.token.token.scope if about.token else "",
    "source": _source,
    "uri": lambda about: about.path + about.request.target.query,
}
