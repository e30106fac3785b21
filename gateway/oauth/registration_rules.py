"""Checks that the members of a registration fit each other and the provider.

RFC 7591 section 2, RFC 7523 (keys), RFC 8705 sections 2.1 and 2.2 (certificates),
RFC 9700 section 2.1 (redirect URIs).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.errors import InvalidClientMetadataError, InvalidRedirectUriError
from gateway.oauth.jose import read_public_keys
from gateway.oauth.policy import AUTHORIZATION_CODE, ProviderPolicy

CERTIFICATE_NAMES = (
    "tls_client_auth_subject_dn",
    "tls_client_auth_san_dns",
    "tls_client_auth_san_uri",
    "tls_client_auth_san_ip",
    "tls_client_auth_san_email",
)
MAX_NAMED = 20
# A scheme of an application's own must hold a dot: it is a reversed domain name (RFC 8252
# section 7.1), and `javascript:` and the like are none.
_PRIVATE_SCHEME = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+")
# RFC 3986 section 2, without the brackets that only IPv6 addresses need: what laxer readers
# repair (browsers take a backslash for a slash) could lead elsewhere than it seems.
_URI = re.compile(
    r"[a-z][a-z0-9+.-]*:(?://\[[0-9a-f:.]+\])?[a-z0-9_.~:/?#@!$&'()*+,;=%-]*", re.IGNORECASE
)


def check_known(kind: str, given: Collection[str], known: Collection[str]) -> None:
    """Check that all names are known. Raises `InvalidClientMetadataError`, which names the first
    that is not and some of those that are."""
    for name in given:
        if name not in known:
            names = ", ".join(sorted(known)[:MAX_NAMED]) or "none"
            raise InvalidClientMetadataError(f"Unknown {kind} {name[:100]!r} (known: {names}).")


def check_metadata(metadata: ClientMetadata, policy: ProviderPolicy, *, is_trusted: bool) -> None:
    """Raises `InvalidClientMetadataError` and `InvalidRedirectUriError`."""
    if not metadata.grant_types:
        raise InvalidClientMetadataError("grant_types must not be empty.")
    check_known("grant type", metadata.grant_types, policy.grant_types)
    check_known("audience", metadata.audiences, policy.known_audiences)
    for uri in metadata.redirect_uris:
        _check_redirect_uri(uri)
    if AUTHORIZATION_CODE in metadata.grant_types and not metadata.redirect_uris:
        raise InvalidRedirectUriError("The authorization code grant needs redirect_uris.")
    if not set(metadata.response_types) <= {"code"}:
        raise InvalidClientMetadataError("response_types can only name code.")
    for name in ("client_uri", "logo_uri", "tos_uri", "policy_uri"):
        uri = getattr(metadata, name)
        if uri is not None and not _is_web_url(uri):
            raise InvalidClientMetadataError(f"{name} must be an http or https URL.")
    _check_keys(metadata, policy, is_trusted=is_trusted)
    _check_method(metadata)


def _check_redirect_uri(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        raise InvalidRedirectUriError("A redirect URI is not a URI.") from None
    if not _URI.fullmatch(uri) or parts.fragment or "#" in uri or parts.username is not None:
        raise InvalidRedirectUriError(
            "A redirect URI must be absolute, without a fragment and a user."
        )
    is_safe = (
        (parts.scheme == "https" and host)
        or (parts.scheme == "http" and is_loopback(host))
        or (_PRIVATE_SCHEME.fullmatch(parts.scheme) and not host)
    )
    if not is_safe:
        raise InvalidRedirectUriError(
            "A redirect URI must be https, or http on a loopback address, or of a private "
            "scheme with a dot."
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this host's own (RFC 8252 section 7.3)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_keys(metadata: ClientMetadata, policy: ProviderPolicy, *, is_trusted: bool) -> None:
    if metadata.jwks is not None and metadata.jwks_uri is not None:
        raise InvalidClientMetadataError("jwks and jwks_uri must not both be given.")
    if metadata.jwks is not None and not read_public_keys(metadata.jwks):
        raise InvalidClientMetadataError("jwks must hold public EC, OKP or RSA keys, only.")
    if metadata.jwks_uri is not None:
        if not _is_web_url(metadata.jwks_uri):
            raise InvalidClientMetadataError("jwks_uri must be an http or https URL.")
        # A caller that may register could otherwise have the gateway call any host that it reaches.
        if not is_trusted and not metadata.jwks_uri.startswith(policy.client_jwks_uris or ("\0",)):
            raise InvalidClientMetadataError("jwks_uri is not one that is followed here.")


def _check_method(metadata: ClientMetadata) -> None:
    method = metadata.token_endpoint_auth_method
    has_keys = metadata.jwks is not None or metadata.jwks_uri is not None
    if method in {"private_key_jwt", "self_signed_tls_client_auth"} and not has_keys:
        raise InvalidClientMetadataError(f"{method} needs jwks or jwks_uri.")
    names = [name for name in CERTIFICATE_NAMES if getattr(metadata, name) is not None]
    if method == "tls_client_auth" and len(names) != 1:
        raise InvalidClientMetadataError(f"{method} needs one of {', '.join(CERTIFICATE_NAMES)}.")
    if method == "none" and "client_credentials" in metadata.grant_types:
        raise InvalidClientMetadataError(
            "A client that can't authenticate can't use the client credentials grant."
        )


def _is_web_url(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.username is None
            and _URI.fullmatch(uri) is not None
        )
    except ValueError:
        return False
