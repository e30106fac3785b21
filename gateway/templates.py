"""Texts of the configuration with variables in them: `client {client_id} of {source}`.

`{{` and `}}` are literal braces. Which variables there are depends on where a text is used.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from gateway.claim_path import ClaimPath, ClaimPathError, parse_claim_path

ABOUT_REQUEST = frozenset(
    {"host", "method", "path", "query", "request_id", "route", "scheme", "source", "uri", "header"}
)
"""Variables of any request; `header` takes a name: `{header:User-Agent}`."""
ABOUT_CLIENT = frozenset({"client_id"})
ABOUT_TOKEN = frozenset({"client_name", "scopes", "claim"})
"""`claim` takes a path: `{claim:realm_access.roles}`."""

IN_REQUEST_HEADERS = ABOUT_REQUEST | ABOUT_CLIENT | ABOUT_TOKEN
IN_RESPONSE_HEADERS = ABOUT_REQUEST | ABOUT_CLIENT
IN_REDIRECTS = frozenset({"host", "path", "query", "request_id", "route", "scheme", "uri"})

SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "dpop"})
"""Not to be copied elsewhere: what is in them opens doors."""

_PART = re.compile(r"\{\{|\}\}|\{([a-z_]*)(?::([^{}]*))?\}|[{}]|[^{}]+")
_LITERAL = re.compile(r"[\t -~]*")
_ARGUMENTS = {"claim": "claim:PATH", "header": "header:NAME"}
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


class TemplateError(ValueError):
    """A text is not a valid template; the message says why."""


class Variable(NamedTuple):
    """A place in a template that depends on the request."""

    name: str
    argument: str = ""
    claim: ClaimPath | None = None


Template = tuple[str | Variable, ...]


def parse_template(text: str, allowed: Collection[str]) -> Template:
    """Read a template that may use the variables `allowed`. Raises `TemplateError`."""
    if not _LITERAL.fullmatch(text):
        raise TemplateError("expected visible ASCII: no line end, no control character")
    parts: list[str | Variable] = []
    for part in _PART.finditer(text):
        whole = part[0]
        if whole in {"{{", "}}"}:
            parts.append(whole[0])
        elif whole in {"{", "}"}:
            raise TemplateError("has a lone brace; a literal one is written {{ or }}")
        elif part[1] is None:
            parts.append(whole)
        else:
            parts.append(_variable(part[1], part[2], allowed))
    return tuple(parts)


def _variable(name: str, argument: str | None, allowed: Collection[str]) -> Variable:
    if name not in allowed:
        known = ", ".join(_ARGUMENTS.get(one, one) for one in sorted(allowed))
        raise TemplateError(f"there is no variable {{{name}}} here, expected one of {known}")
    if name == "claim":
        return Variable(name, argument or "", _read_claim(argument or ""))
    if name != "header":
        if argument is not None:
            raise TemplateError(f"the variable {{{name}}} takes no argument")
        return Variable(name)
    if not argument or not _HEADER_NAME.fullmatch(argument):
        raise TemplateError("expected the name of a header field: {header:User-Agent}")
    if argument.lower() in SECRET_HEADERS:
        raise TemplateError("credentials are not to be copied into another field")
    return Variable(name, argument.lower())


def _read_claim(path: str) -> ClaimPath:
    try:
        return parse_claim_path(path)
    except ClaimPathError as error:
        raise TemplateError(f"{{claim:{path}}}: {error}") from None


def claim_paths(template: Template) -> list[ClaimPath]:
    """Return the paths of the claims in a template."""
    variables = (part for part in template if isinstance(part, Variable))
    return [variable.claim for variable in variables if variable.claim is not None]
