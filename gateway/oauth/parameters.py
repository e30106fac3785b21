"""The parameters of a provider request: from the form, JSON body, headers or query.

RFC 6749 section 3.2: parameters must not be repeated. Here that holds across the places
too: the same parameter in a header and in the body is ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from urllib.parse import parse_qsl

import msgspec

from gateway.http.fields import RawHeaders
from gateway.oauth.errors import InvalidRequestError, InvalidScopeError

_SCOPE = re.compile(r"[!#-\[\]-~]+")
MAX_PARAMETERS = 64
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

Parameters = dict[str, str]


def read_form(encoded: str | bytes, *, repeatable: Container[str] = ()) -> Parameters:
    """The parameters of a form or query, without those that are `repeatable`.

    Empty values are treated as omitted (RFC 6749 section 3.1). Raises `InvalidRequestError`.
    """
    return _unique([pair for pair in _read_pairs(encoded) if pair[0] not in repeatable])


def read_repeated(encoded: str | bytes, name: str) -> tuple[str, ...]:
    """The values of a parameter that may be repeated (RFC 8707 section 2), in order.

    Raises `InvalidRequestError`.
    """
    values = [value for key, value in _read_pairs(encoded) if key == name and value]
    return tuple(dict.fromkeys(values))


def split_scope(scope: str) -> tuple[str, ...]:
    """The scopes in a `scope` parameter, each once (RFC 6749 section 3.3).

    Raises `InvalidScopeError` for one that is written in characters that no scope can have.
    """
    names = [name for name in scope.split(" ") if name]
    if not all(map(_SCOPE.fullmatch, names)):
        raise InvalidScopeError("The scope is malformed.")
    return tuple(dict.fromkeys(names))


def _read_pairs(encoded: str | bytes) -> list[tuple[str, str]]:
    try:
        text = encoded if isinstance(encoded, str) else encoded.decode("ascii")
        return parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        separator = "&" if isinstance(encoded, str) else b"&"
        if encoded.count(separator) >= MAX_PARAMETERS:  # type: ignore[arg-type]
            raise InvalidRequestError(f"There are more than {MAX_PARAMETERS} parameters.") from None
        raise InvalidRequestError("The parameters are not form-encoded UTF-8.") from None


def read_json_object(body: bytes) -> dict[str, object]:
    """The members of a JSON object. Raises `InvalidRequestError`."""
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError("The body is not a JSON object.") from None


def read_json(body: bytes, names: Iterable[str]) -> Parameters:
    """Those members of a JSON object that are named. Raises `InvalidRequestError`.

    Other members are ignored, as RFC 7591 section 2 asks for.
    """
    members = read_json_object(body)
    try:
        chosen = {name: members[name] for name in names if members.get(name) is not None}
        return {k: v for k, v in msgspec.convert(chosen, dict[str, str]).items() if v}
    except msgspec.MsgspecError:
        raise InvalidRequestError("The body is not a JSON object with string members.") from None


def read_headers(headers: RawHeaders, names: Iterable[str]) -> Parameters:
    """The parameters that are given as header fields of the same name, or with hyphens for the
    underscores, since nginx and others drop fields with underscores. Values are UTF-8 or, where
    they can't be, Latin-1.

    Raises `InvalidRequestError`.
    """
    wanted = {name.encode("ascii"): name for name in names}
    given = {key.lower() for key, _ in headers}
    hyphened = {key.replace(b"_", b"-"): name for key, name in wanted.items() if key not in given}
    wanted = hyphened | wanted
    return _unique(
        [(wanted[key.lower()], _decode(value)) for key, value in headers if key.lower() in wanted]
    )


def _decode(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _unique(pairs: Sequence[tuple[str, str]]) -> Parameters:
    parameters: Parameters = {}
    for name, value in pairs:
        if name in parameters:
            raise InvalidRequestError("A parameter is repeated.")
        parameters[name] = value
    return {name: value for name, value in parameters.items() if value}


def merge(*sources: Mapping[str, str]) -> Parameters:
    """The parameters of all sources together. Raises `InvalidRequestError` for one that is
    given in two of them."""
    merged: Parameters = {}
    for source in sources:
        if merged.keys() & source.keys():
            raise InvalidRequestError("A parameter is given in two places.")
        merged |= source
    return merged
