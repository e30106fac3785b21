"""Client metadata beside id, name, secret and scopes (RFC 7591 section 2), typed, and the rules
for its members: RFC 7523 (keys), RFC 8705 sections
2.1 and 2.2 (certificates), RFC 9700 section 2.1 (redirect URIs).

The store keeps it as JSON values (`Client.metadata`) without what has its default, so a
client from an older version reads as one that never said anything about newer things.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from gateway.oauth.distinguished_names import parse_name
from gateway.oauth.errors import InvalidClientMetadataError, InvalidRedirectUriError
from gateway.oauth.jose import read_public_keys
from gateway.oauth.models import AuthMethod, Client, TokenFormat
from gateway.oauth.policy import AUTHORIZATION_CODE, CLIENT_CREDENTIALS, ProviderPolicy
from gateway.suggestions import did_you_mean, listed

SECRET_METHODS = frozenset({None, "client_secret_basic", "client_secret_post"})
SHOWN_URIS = ("client_uri", "logo_uri", "tos_uri", "policy_uri")
"""Pages of the client, for users to see."""
MAX_METADATA_BYTES = 16 * 1024
CERTIFICATE_NAMES = (
    "tls_client_auth_subject_dn",
    "tls_client_auth_san_dns",
    "tls_client_auth_san_uri",
    "tls_client_auth_san_ip",
    "tls_client_auth_san_email",
)
# A scheme of an application's own must hold a dot: it is a reversed domain name (RFC 8252
# section 7.1), and `javascript:` and the like are none.
_PRIVATE_SCHEME = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+")
# RFC 3986 section 2, without the brackets that only IPv6 addresses need: what laxer readers
# repair (browsers take a backslash for a slash) could lead elsewhere than it seems.
_URI = re.compile(
    r"[a-z][a-z0-9+.-]*:(?://\[[0-9a-f:.]+\])?[a-z0-9_.~:/?#@!$&'()*+,;=%-]*",
    re.IGNORECASE | re.ASCII,  # else the Kelvin sign is a `k`, and the long s an `s`
)
# RFC 1123 section 2.1, and the underscore that some hosts have.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


@dataclass(frozen=True, slots=True)
class ClientMetadata:
    """Names and meanings are those of RFC 7591, 7523, 8705 and 9449, unless noted otherwise."""

    grant_types: tuple[str, ...] = (CLIENT_CREDENTIALS,)
    token_endpoint_auth_method: AuthMethod | None = None
    """How the client proves who it is; None is by its secret, in any way the provider takes.
    `workload` is ours, and an operator's to give: only by what `workloads` maps to it."""
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
    registered_by: Literal["token", "open", "workload"] | None = None
    """The mode in which it was registered over HTTP; `workload` for one that a rule added; None for
    a client that an operator made, and for one of an older version."""
    unused_until: float | None = None
    """Unix time, seconds, at which a client that registered itself is deleted unless it gets a
    token before; None once it got one."""
    previous_secret_hash: str | None = field(default=None, repr=False)
    """argon2id, in PHC string format, of the secret before the last rotation."""
    previous_secret_expires_at: float | None = None
    """Unix time, seconds, until which that one works, too; None, beside a hash, for as long as it
    is declared."""
    managed_by: str | None = None
    """The `clients_owner` of the configuration that declares it, and may alone change it."""
    disabled_at: float | None = None
    """Unix time, seconds, at which that configuration declared it no more."""

    @property
    def uses_secret(self) -> bool:
        """Whether the client has a secret."""
        return self.token_endpoint_auth_method in SECRET_METHODS

    def previous_secret(self, now: float) -> str | None:
        """The hash of the secret before the last rotation, as long as it still works."""
        expires_at = self.previous_secret_expires_at
        return self.previous_secret_hash if expires_at is None or now < expires_at else None

    def described(self) -> dict[str, Any]:
        """The members that clients and operators may see, those that were never set left out."""
        members = self.stored()
        for name in _SECRET:
            members.pop(name, None)
        return {"grant_types": list(self.grant_types), **members}

    def stored(self) -> dict[str, Any]:
        """As the store keeps it."""
        members: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return {
            field.name: members[field.name]
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


_SECRET = (
    "registration_token_digest", "previous_secret_hash", "previous_secret_expires_at",
    "unused_until", "disabled_at",
)  # fmt: skip
KEPT = (*_SECRET, "registered_by", "managed_by")
"""The members that no registration and no change of one holds."""
REGISTRABLE = tuple(field.name for field in fields(ClientMetadata) if field.name not in KEPT)
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
        raise _wrong_member(error, known) from None


def merge_metadata(metadata: ClientMetadata, changes: Mapping[str, Any]) -> ClientMetadata:
    """The metadata with some members changed; null gives one its default again (RFC 7396).

    Raises `InvalidClientMetadataError`.
    """
    named = {name: changes[name] for name in REGISTRABLE if name in changes}
    merged = read_metadata({**metadata.stored(), **named})
    return keep_internal(merged, metadata)


def keep_internal(metadata: ClientMetadata, old: ClientMetadata) -> ClientMetadata:
    """New metadata of a client, with what only the gateway sets as it was."""
    return replace(metadata, **{name: getattr(old, name) for name in KEPT})


CHOICES: Mapping[str, tuple[str, ...]] = {
    "token_endpoint_auth_method": get_args(AuthMethod),
    "access_token_format": get_args(TokenFormat),
}
"""The members that have one of a few values, and which."""


def _wrong_member(error: Exception, given: Mapping[str, Any]) -> InvalidClientMetadataError:
    # "Expected `str`, got `int` - at `$.jwks_uri`": which member, and its value only where it can't
    # be a secret.
    _, _, place = str(error).rpartition("$")
    member = place.strip("`.").partition(".")[0].partition("[")[0]
    value = given.get(member)
    if member in CHOICES and isinstance(value, str):
        return _unknown(member, value, CHOICES[member], member)
    choices = f" (one of: {', '.join(CHOICES[member])})" if member in CHOICES else ""
    return InvalidClientMetadataError(
        f"Invalid value of {member or 'the client metadata'}{choices}.", member=member
    )


def check_known(
    kind: str, given: Collection[str], known: Collection[str], *, member: str = ""
) -> None:
    """Check that all names in a member are known. Raises `InvalidClientMetadataError`, which names
    the first that is not and some of those that are."""
    for name in given:
        if name not in known:
            raise _unknown(kind, name, sorted(known), member)


def _unknown(
    kind: str, value: str, known: Sequence[str], member: str
) -> InvalidClientMetadataError:
    hint = did_you_mean(value, known) or "."
    return InvalidClientMetadataError(
        f"Unknown {kind} {value[:100]!r} (known: {listed(known)}){hint}", member=member
    )


def check_metadata(metadata: ClientMetadata, policy: ProviderPolicy, *, is_trusted: bool) -> None:
    """Raises `InvalidClientMetadataError` and `InvalidRedirectUriError`."""
    if not metadata.grant_types:
        raise InvalidClientMetadataError(
            f"grant_types must name one at least (known: {', '.join(policy.grant_types)}).",
            member="grant_types",
        )
    check_known("grant type", metadata.grant_types, policy.grant_types, member="grant_types")
    check_known("audience", metadata.audiences, policy.known_audiences, member="audiences")
    for uri in metadata.redirect_uris:
        check_redirect_uri(uri, policy.redirect_schemes)
    if AUTHORIZATION_CODE in metadata.grant_types and not metadata.redirect_uris:
        raise InvalidRedirectUriError(
            "The authorization code grant needs redirect_uris, such as "
            "https://app.example/callback."
        )
    check_known("response type", metadata.response_types, ["code"], member="response_types")
    for name in SHOWN_URIS:
        uri = getattr(metadata, name)
        if uri is not None and not is_web_url(uri):
            raise _no_web_url(name, uri)
    _check_keys(metadata, policy, is_trusted=is_trusted)
    if metadata.token_endpoint_auth_method == "workload" and not is_trusted:
        raise InvalidClientMetadataError(
            "token_endpoint_auth_method workload is an operator's.",
            member="token_endpoint_auth_method",
        )
    _check_method(metadata)


def check_redirect_uri(uri: str, schemes: Collection[str]) -> None:
    """Check a redirect URI; `schemes` are taken beside those with a dot. Raises
    `InvalidRedirectUriError`."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:  # such as a port that is none
        raise InvalidRedirectUriError(f"{uri[:200]!r} is not a URI: {error}.") from None
    if not _URI.fullmatch(uri) or parts.fragment or "#" in uri or parts.username is not None:
        raise InvalidRedirectUriError(
            f"The redirect URI {uri[:200]!r} must be absolute, such as "
            "https://app.example/callback, without a fragment and a user."
        )
    if host and not (_HOST.fullmatch(host) or ":" in host):
        raise InvalidRedirectUriError(f"The host {host!r} of a redirect URI is not a host name.")
    if port == 0:
        raise InvalidRedirectUriError("The port of a redirect URI is 0.")
    is_safe = (
        (parts.scheme == "https" and host)
        or (parts.scheme == "http" and is_loopback(host))
        or (parts.scheme not in {"https", "http"} and _is_private_scheme(parts.scheme, schemes))
    )
    if not is_safe:
        others = ", ".join(sorted(schemes))
        raise InvalidRedirectUriError(
            f"The redirect URI {uri[:200]!r} must be https, or http on a loopback address, or of "
            f"a private scheme with a dot{f', or one of: {others}' if others else ''}."
        )


def _is_private_scheme(scheme: str, schemes: Collection[str]) -> bool:
    return scheme in schemes or _PRIVATE_SCHEME.fullmatch(scheme) is not None


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this host's own (RFC 8252 section 7.3)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _no_web_url(name: str, uri: str) -> InvalidClientMetadataError:
    return InvalidClientMetadataError(
        f"{name} {uri[:200]!r} must be an http or https URL.", member=name
    )


def _check_keys(metadata: ClientMetadata, policy: ProviderPolicy, *, is_trusted: bool) -> None:
    if metadata.jwks is not None and metadata.jwks_uri is not None:
        raise InvalidClientMetadataError(
            "jwks and jwks_uri must not both be given.", member="jwks_uri"
        )
    if metadata.jwks is not None and not read_public_keys(metadata.jwks):
        raise InvalidClientMetadataError(
            "jwks must hold a public EC, OKP or RSA key for signatures in its keys, and no private "
            "one.",
            member="jwks",
        )
    if metadata.jwks_uri is not None:
        if not is_web_url(metadata.jwks_uri):
            raise _no_web_url("jwks_uri", metadata.jwks_uri)
        # A caller that may register could otherwise have the gateway call any host that it reaches.
        if not is_trusted and not metadata.jwks_uri.startswith(policy.client_jwks_uris or ("\0",)):
            raise InvalidClientMetadataError(
                "jwks_uri is not one that is followed here.", member="jwks_uri"
            )


def _check_method(metadata: ClientMetadata) -> None:
    method = metadata.token_endpoint_auth_method
    has_keys = metadata.jwks is not None or metadata.jwks_uri is not None
    if method in {"private_key_jwt", "self_signed_tls_client_auth"} and not has_keys:
        raise InvalidClientMetadataError(f"{method} needs jwks or jwks_uri.", member="jwks")
    names = [name for name in CERTIFICATE_NAMES if getattr(metadata, name) is not None]
    if method == "tls_client_auth" and len(names) != 1:
        given = f", and not {len(names)}" if names else ""
        raise InvalidClientMetadataError(
            f"{method} needs one of {', '.join(CERTIFICATE_NAMES)}{given}.",
            member=names[-1] if names else CERTIFICATE_NAMES[0],
        )
    if metadata.tls_client_auth_subject_dn is not None:
        try:
            parse_name(metadata.tls_client_auth_subject_dn)
        except ValueError as error:
            name, subject = CERTIFICATE_NAMES[0], metadata.tls_client_auth_subject_dn
            raise InvalidClientMetadataError(
                f"{name} {subject[:100]!r}: {error}.", member=name
            ) from None
    _check_alternative_names(metadata)
    if method == "none" and "client_credentials" in metadata.grant_types:
        raise InvalidClientMetadataError(
            "A client that can't authenticate (token_endpoint_auth_method none) can't use the "
            "client credentials grant.",
            member="token_endpoint_auth_method",
        )


def _check_alternative_names(metadata: ClientMetadata) -> None:
    """Check that a certificate could have these names."""
    if (ip := metadata.tls_client_auth_san_ip) is not None:
        try:
            ipaddress.ip_address(ip)
        except ValueError:
            raise InvalidClientMetadataError(
                f"tls_client_auth_san_ip {ip[:100]!r} is no IP address.",
                member="tls_client_auth_san_ip",
            ) from None
    for name, is_good, example in (
        ("tls_client_auth_san_dns", _is_dns_name, "till.shop.example"),
        ("tls_client_auth_san_uri", lambda uri: _URI.fullmatch(uri) is not None,
         "spiffe://shop.example/till"),
        ("tls_client_auth_san_email", lambda email: 0 < email.rfind("@") < len(email) - 1,
         "till@shop.example"),
    ):  # fmt: skip
        value: str | None = getattr(metadata, name)
        if value is not None and not is_good(value):
            raise InvalidClientMetadataError(
                f"{name} {value[:100]!r} can't be one; it is like {example}.", member=name
            )


def _is_dns_name(name: str) -> bool:
    return _HOST.fullmatch(name.lower().removeprefix("*.")) is not None


def is_web_url(uri: str) -> bool:
    """Whether a text is an http or https URL."""
    try:
        parts = urlsplit(uri)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.username is None
            and parts.port != 0
            and _URI.fullmatch(uri) is not None
        )
    except ValueError:
        return False
