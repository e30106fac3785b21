"""Client metadata beside id, name, secret and scopes (RFC 7591 section 2), typed.

The store keeps it as JSON values (`Client.metadata`) without what has its default, so a
client from an older version reads as one that never said anything about newer things.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, Literal, get_args

import msgspec

from gateway.oauth.errors import InvalidClientMetadataError
from gateway.oauth.models import Client, TokenFormat
from gateway.oauth.policy import CLIENT_CREDENTIALS

AuthMethod = Literal[
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "none",
]
SECRET_METHODS = frozenset({None, "client_secret_basic", "client_secret_post"})
MAX_METADATA_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ClientMetadata:
    """Names and meanings are those of RFC 7591, 7523, 8705 and 9449, unless noted otherwise."""

    grant_types: tuple[str, ...] = (CLIENT_CREDENTIALS,)
    token_endpoint_auth_method: AuthMethod | None = None
    """How the client proves who it is; None is by its secret, in any way the provider takes."""
    redirect_uris: tuple[str, ...] = ()
    response_types: tuple[str, ...] = ()
    jwks: dict[str, Any] | None = None
    """Public keys of the client (RFC 7517), for `private_key_jwt` and self-signed certificates."""
    jwks_uri: str | None = None
    tls_client_auth_subject_dn: str | None = None
    """RFC 4514 string of the subject of its certificate."""
    tls_client_auth_san_dns: str | None = None
    tls_client_auth_san_uri: str | None = None
    tls_client_auth_san_ip: str | None = None
    tls_client_auth_san_email: str | None = None
    tls_client_certificate_bound_access_tokens: bool = False
    dpop_bound_access_tokens: bool = False
    access_token_format: TokenFormat | None = None
    """Ours: what its tokens look like; None leaves it to the resource and the provider."""
    audiences: tuple[str, ...] = ()
    """Ours: what it may get tokens for (RFC 8707); empty is whatever the provider knows."""
    skip_consent: bool = False
    """Ours, and an operator's to give: users are not asked whether they allow it."""
    client_uri: str | None = None
    logo_uri: str | None = None
    tos_uri: str | None = None
    policy_uri: str | None = None
    contacts: tuple[str, ...] = ()
    software_id: str | None = None
    software_version: str | None = None
    description: str | None = None
    """Ours, and Mule's."""
    registration_token_digest: str | None = field(default=None, repr=False)
    """SHA-256 of the registration access token (RFC 7592), in hexadecimal digits."""

    @property
    def uses_secret(self) -> bool:
        """Whether the client has a secret."""
        return self.token_endpoint_auth_method in SECRET_METHODS

    def described(self) -> dict[str, Any]:
        """The members that clients and operators may see, those that were never set left out."""
        members = self.stored()
        members.pop("registration_token_digest", None)
        return {"grant_types": list(self.grant_types), **members}

    def stored(self) -> dict[str, Any]:
        """As the store keeps it."""
        members: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return {
            field.name: members[field.name]
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


REGISTRABLE = tuple(
    field.name for field in fields(ClientMetadata) if field.name != "registration_token_digest"
)
"""The members that a registration may hold."""


def metadata_of(client: Client) -> ClientMetadata:
    """The metadata of a client."""
    return _decode(msgspec.json.encode(client.metadata))


@lru_cache(maxsize=4096)
def _decode(stored: bytes) -> ClientMetadata:
    return msgspec.json.decode(stored, type=ClientMetadata)


def read_metadata(members: Mapping[str, Any]) -> ClientMetadata:
    """The metadata in a registration request. Members of other names are ignored, and so are
    those that are null (RFC 7591 section 2).

    Raises `InvalidClientMetadataError` for a value of the wrong type.
    """
    known = {name: members[name] for name in REGISTRABLE if members.get(name) is not None}
    try:
        if len(msgspec.json.encode(known)) > MAX_METADATA_BYTES:
            raise InvalidClientMetadataError("The client metadata is too large.")
        return msgspec.convert(known, ClientMetadata)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise InvalidClientMetadataError(_explain(error)) from None


def merge_metadata(metadata: ClientMetadata, changes: Mapping[str, Any]) -> ClientMetadata:
    """The metadata with some members changed; null gives one its default again (RFC 7396).

    Raises `InvalidClientMetadataError`.
    """
    named = {name: changes[name] for name in REGISTRABLE if name in changes}
    merged = read_metadata({**metadata.stored(), **named})
    return replace(merged, registration_token_digest=metadata.registration_token_digest)


def _explain(error: Exception) -> str:
    # "Expected `str`, got `int` - at `$.jwks_uri`": which member, and never its value.
    _, _, place = str(error).rpartition("$")
    member = place.strip("`.").partition(".")[0].partition("[")[0]
    expected = {
        "token_endpoint_auth_method": get_args(AuthMethod),
        "access_token_format": get_args(TokenFormat),
    }.get(member)
    choices = f" (one of: {', '.join(expected)})" if expected else ""
    return f"Invalid value of {member or 'the client metadata'}{choices}."
