"""The variables of templates, filled in for a request.

A value that a client chose can't break out of the line that it is put in: control
characters and what is not ASCII are percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from gateway.claim_path import ClaimPath, read_values
from gateway.downstream.request import Request
from gateway.oauth.access import CachedToken
from gateway.templates import Template, Variable

VISIBLE = " !#$&'()*+,/:;=?@[]^`{|}~"
_CLAIM_SAFE = VISIBLE.replace(",", "")
MAX_CLAIM_CHARS = 8192
"""Upstreams reject heads with larger fields: one with such a claim goes without."""
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
    """The text for a request; empty where it has a claim that the token lacks."""
    parts: list[str] = []
    for part in template:
        if isinstance(part, str):
            parts.append(part)
        elif part.claim is None:
            parts.append(_value(part, values))
        elif claim := render_claim(part.claim, values.token):
            parts.append(claim)
        else:
            return ""
    return "".join(parts).strip(" \t")


def render_claim(path: ClaimPath, token: CachedToken | None) -> str:
    """The values of a claim, with commas between them; empty where there are none.

    What is not visible ASCII, a comma and `%` are percent-encoded, so that it shows which values
    there are.
    """
    found = () if token is None else read_values(path.find(token.claims))
    values = [quote(value, safe=_CLAIM_SAFE, errors="replace") for value in found if value]
    # A blank at an end would be lost.
    values = [value if value == value.strip() else value.replace(" ", "%20") for value in values]
    text = ",".join(values)
    return text if len(text) <= MAX_CLAIM_CHARS else ""


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
