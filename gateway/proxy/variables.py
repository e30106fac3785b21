"""The variables of templates, filled in for a request.

A value that a client chose can't break out of the line that it is put in: control
characters and what is not ASCII are percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from gateway.downstream.request import Request
from gateway.oauth.access import CachedToken
from gateway.templates import Template, Variable

VISIBLE = " !#$&'()*+,/:;=?@[]^`{|}~"
_UNFIT = re.compile(r"[^\t -~]")


class Values(NamedTuple):
    """Values of the variables in a template."""

    request: Request
    route: str = ""
    client_id: str = ""
    token: CachedToken | None = None
    path: str = ""
    """Stands for the path of the request, where it is given."""


def render(template: Template, values: Values) -> str:
    """The text for a request."""
    parts = [part if isinstance(part, str) else _value(part, values) for part in template]
    return "".join(parts).strip(" \t")


def _value(variable: Variable, values: Values) -> str:
    if variable.name == "header":
        found = values.request.header_values(variable.argument.encode())
        value = ", ".join(one.decode("latin-1") for one in found)
    else:
        value = _VALUES[variable.name](values)
    return _UNFIT.sub(lambda unfit: quote(unfit[0], safe=""), value)


def _client_name(values: Values) -> str:
    # As in X-Client-Name: any text, so `%` is encoded, too.
    return quote(values.token.token.client_name, safe=VISIBLE) if values.token else ""


def _path(values: Values) -> str:
    return values.path or values.request.target.path


_VALUES: dict[str, Callable[[Values], str]] = {
    "client_id": lambda values: values.client_id,
    "client_name": _client_name,
    "host": lambda values: values.request.routing_host,
    "method": lambda values: values.request.method,
    "path": _path,
    "query": lambda values: values.request.target.query[1:],
    "request_id": lambda values: values.request.request_id.decode("ascii"),
    "route": lambda values: values.route,
    "scheme": lambda values: values.request.scheme,
    "scopes": lambda values: values.token.token.scope if values.token else "",
    "source": lambda values: values.request.client,
    "uri": lambda values: _path(values) + values.request.target.query,
}
