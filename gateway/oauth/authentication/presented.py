"""Reads the client's credentials from its request: exactly one method of authentication.

RFC 6749 section 2.3 (secrets), RFC 7521 section 4.2 (assertions), RFC 8705 section 2
(certificates).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_plus

from gateway.http.fields import RawHeaders, header_values
from gateway.oauth.errors import InvalidClientError, InvalidRequestError
from gateway.oauth.jose import JwtError, read_jwt
from gateway.oauth.models import CredentialSource
from gateway.oauth.parameters import Parameters

CREDENTIAL_PARAMETERS = ("client_id", "client_secret", "client_assertion", "client_assertion_type")
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
"""draft-ietf-oauth-spiffe-client-auth."""


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The credentials that a client presents."""

    client_id: str
    client_secret: str = field(default="", repr=False)
    place: CredentialSource | None = None
    """Where the secret was; None where there is none."""
    assertion: str | None = field(default=None, repr=False)
    """A JWT signed by the client, or by the platform of a workload (RFC 7523)."""
    is_platform_token: bool = False
    """Whether another issuer than the client made it."""

    @property
    def is_id_alone(self) -> bool:
        """Whether there is nothing but an id, or not even that."""
        return self.place is None and self.assertion is None


def read_basic(headers: RawHeaders, *, is_only_way: bool = True) -> ClientCredentials | None:
    """HTTP Basic credentials, both halves form-decoded (RFC 6749 section 2.3.1); None where
    there is no Authorization header, an empty one, or one of another scheme that the client can't
    have meant, since this is not the `is_only_way` by which it could authenticate. An empty secret
    is none: a public client has nothing to show.

    Raises `InvalidRequestError` for more than one header, and `InvalidClientError` for one
    that can't be read: authentication was tried and failed (RFC 6749 section 5.2).
    """
    values = header_values(headers, b"authorization")
    if not any(values):
        return None
    if len(values) > 1:
        raise InvalidRequestError("More than one Authorization header.")
    scheme, _, encoded = values[0].partition(b" ")
    if scheme.lower() != b"basic" and not is_only_way:
        return None
    if scheme.lower() != b"basic":
        raise InvalidClientError("Only the Basic scheme authenticates a client here.")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
        client_id, colon, client_secret = decoded.partition(":")
        if not colon or not client_id:
            raise ValueError
        return ClientCredentials(
            unquote_plus(client_id, errors="strict"),
            unquote_plus(client_secret, errors="strict"),
            "basic" if client_secret else None,
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
    may_be_absent: bool = False,
) -> ClientCredentials:
    """The credentials of a client, given in exactly one of the `allowed` ways.

    A client id alone is what a client sends that proves itself by its certificate, or not
    at all; whether that is enough is not decided here. With `may_be_absent`, nor is it whether
    nothing is: the certificate or the grant may name the client.

    Raises `InvalidRequestError` for two ways at once, or one that is not allowed, and
    `InvalidClientError` where there are none.
    """
    found: list[ClientCredentials] = []
    places: tuple[tuple[CredentialSource, Parameters], ...] = (
        ("form", form),
        ("header", header),
        ("query", query),
    )
    named = {parameters["client_id"] for _, parameters in places if "client_id" in parameters}
    for place, parameters in places:
        if "client_secret" in parameters:
            # The id may be in another place, as long as there is but one.
            client_id = parameters.get("client_id") or next(iter(named), "")
            found.append(ClientCredentials(client_id, parameters["client_secret"], place))
    if assertion := _read_assertion(form):
        found.append(assertion)
    if basic := read_basic(headers, is_only_way=not found):
        found.append(basic)
    if len(named) > 1 or len(found) > 1:
        raise InvalidRequestError("The client authenticates in two ways at once.")
    if not found:
        if not named and not may_be_absent:
            raise InvalidClientError("No client credentials were given.")
        return ClientCredentials(next(iter(named), ""))
    credentials = found[0]
    if credentials.is_platform_token:
        return replace(credentials, client_id=next(iter(named), ""))
    # RFC 6749 section 3.2.1 lets a client send client_id to say who it is; beside Basic or an
    # assertion it proves nothing, and does no harm where it says the same.
    if named and named != {credentials.client_id}:
        raise InvalidRequestError("Two client ids are given.")
    if credentials.place is not None and credentials.place not in allowed:
        raise InvalidRequestError(
            f"Client credentials are not taken from the {credentials.place} here."
        )
    return credentials


def _read_assertion(form: Parameters) -> ClientCredentials | None:
    """RFC 7521 section 4.2. The client is the one that the assertion is about, but where another
    issuer made it: then a rule maps its subject to the client."""
    assertion, kind = form.get("client_assertion"), form.get("client_assertion_type")
    if assertion is None and kind is None:
        return None
    if assertion is None or kind not in {JWT_BEARER, JWT_SPIFFE}:
        raise InvalidRequestError(f"A client_assertion must be of type {JWT_BEARER}.")
    try:
        unproven = read_jwt(assertion)
        client_id, issuer = unproven.text("sub"), unproven.text("iss")
    except JwtError:
        client_id = issuer = None
    if client_id is None:
        raise InvalidClientError("The client assertion can't be read.")
    is_platforms = issuer != client_id if issuer else client_id.startswith("spiffe://")
    return ClientCredentials(client_id, assertion=assertion, is_platform_token=is_platforms)
