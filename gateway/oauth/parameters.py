"""The parameters of a provider request: from the form, JSON body, headers or query.

RFC 6749 section 3.2: parameters must not be repeated. Here that holds across the places
too: the same parameter in a header and in the body is two readings of one request.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_plus

import msgspec

from gateway.oauth.errors import InvalidClientError, InvalidRequestError
from gateway.oauth.models import CredentialSource

MAX_PARAMETERS = 64
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

Parameters = dict[str, str]
RawHeaders = Sequence[tuple[bytes, bytes]]


def header_values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """The values of a field, in order; `name` is lower-case."""
    return [value for key, value in headers if key.lower() == name]


def read_form(encoded: str | bytes) -> Parameters:
    """The parameters of a form or query. Raises `InvalidRequestError`.

    Empty values are treated as omitted (RFC 6749 section 3.1).
    """
    try:
        text = encoded if isinstance(encoded, str) else encoded.decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise InvalidRequestError("The parameters are not form-encoded UTF-8.") from None
    return _unique(pairs)


def read_json(body: bytes, names: Iterable[str]) -> Parameters:
    """Those members of a JSON object that are named. Raises `InvalidRequestError`.

    Other members are ignored, as RFC 7591 section 2 asks for.
    """
    try:
        members = msgspec.json.decode(body, type=dict[str, object])
        chosen = {name: members[name] for name in names if members.get(name) is not None}
        return {k: v for k, v in msgspec.convert(chosen, dict[str, str]).items() if v}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError("The body is not a JSON object with string members.") from None


def read_headers(headers: RawHeaders, names: Iterable[str]) -> Parameters:
    """The parameters that are given as header fields of the same name.

    Raises `InvalidRequestError`.
    """
    wanted = {name.encode("ascii"): name for name in names}
    try:
        pairs = [
            (wanted[key.lower()], value.decode("utf-8"))
            for key, value in headers
            if key.lower() in wanted
        ]
    except UnicodeDecodeError:
        raise InvalidRequestError("A header parameter is not UTF-8.") from None
    return _unique(pairs)


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


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What a client says to prove who it is."""

    client_id: str
    client_secret: str = field(repr=False)


def read_basic(headers: RawHeaders) -> ClientCredentials | None:
    """HTTP Basic credentials, both halves form-decoded (RFC 6749 section 2.3.1); None where
    there is no Authorization header.

    Raises `InvalidRequestError` for more than one header, and `InvalidClientError` for one
    that can't be read: authentication was tried and failed (RFC 6749 section 5.2).
    """
    values = header_values(headers, b"authorization")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequestError("More than one Authorization header.")
    scheme, _, encoded = values[0].partition(b" ")
    if scheme.lower() != b"basic":
        raise InvalidClientError("Only the Basic scheme authenticates a client here.")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
        client_id, colon, client_secret = decoded.partition(":")
        if not colon or not client_id:
            raise ValueError
        return ClientCredentials(
            unquote_plus(client_id, errors="strict"), unquote_plus(client_secret, errors="strict")
        )
    except (binascii.Error, ValueError):
        raise InvalidClientError("The Basic credentials are malformed.") from None


def read_credentials(
    headers: RawHeaders,
    allowed: frozenset[CredentialSource],
    *,
    form: Parameters,
    header: Parameters,
    query: Parameters,
) -> ClientCredentials:
    """The credentials of a client, given in exactly one of the `allowed` ways.

    Raises `InvalidRequestError` for two ways at once, or one that is not allowed, and
    `InvalidClientError` where there are none.
    """
    found: list[tuple[CredentialSource, ClientCredentials]] = []
    if basic := read_basic(headers):
        found.append(("basic", basic))
    places: tuple[tuple[CredentialSource, Parameters], ...] = (
        ("form", form),
        ("header", header),
        ("query", query),
    )
    for place, parameters in places:
        if "client_secret" in parameters or (
            "client_id" in parameters and not (found and _repeats_id(found[0][1], parameters))
        ):
            found.append(
                (
                    place,
                    ClientCredentials(
                        parameters.get("client_id", ""), parameters.get("client_secret", "")
                    ),
                )
            )
    if not found:
        raise InvalidClientError("No client credentials were given.")
    if len(found) > 1:
        raise InvalidRequestError("The client authenticates in two ways at once.")
    way, credentials = found[0]
    if way not in allowed:
        raise InvalidRequestError(f"Client credentials are not taken from the {way} here.")
    return credentials


def _repeats_id(credentials: ClientCredentials, parameters: Parameters) -> bool:
    # RFC 6749 section 3.2.1 lets a client send client_id to say who it is; beside Basic
    # it proves nothing, and does no harm where it says the same.
    return parameters["client_id"] == credentials.client_id
