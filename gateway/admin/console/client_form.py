"""The form of a client's registration: its fields, what they show, and what they ask for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.oauth.client_metadata import CERTIFICATE_NAMES, SHOWN_URIS, ClientMetadata
from gateway.oauth.errors import InvalidClientMetadataError
from gateway.oauth.policy import CLIENT_CREDENTIALS, ProviderPolicy

METHODS = {
    "": "a secret, in any way that the provider takes",
    "client_secret_basic": "a secret, in the Authorization field",
    "client_secret_post": "a secret, in the body",
    "private_key_jwt": "a JWT that it signs; needs its public keys",
    "tls_client_auth": "a certificate of a CA; needs a name in it",
    "self_signed_tls_client_auth": "a certificate of its own; needs its public keys",
    "workload": "what its platform says of it, by workloads of the configuration",
    "none": "nothing: a public client, such as an app in a browser or on a phone",
}
"""How a client authenticates (RFC 7591 section 2), in words; empty is the default."""
FORMATS = {"": "as the provider's", "opaque": "opaque", "jwt": "JWT"}
LABELS = {
    "description": "Description",
    "token_endpoint_auth_method": "Authenticates by",
    "jwks": "Public keys",
    "jwks_uri": "URL of its public keys",
    "tls_client_auth_subject_dn": "Subject of its certificate",
    "tls_client_auth_san_dns": "DNS name in its certificate",
    "tls_client_auth_san_uri": "URI in its certificate",
    "tls_client_auth_san_ip": "IP address in its certificate",
    "tls_client_auth_san_email": "Email address in its certificate",
    "grant_types": "Grants",
    "redirect_uris": "Redirect URIs",
    "skip_consent": "Users are not asked for consent",
    "client_uri": "Home page",
    "logo_uri": "Logo",
    "tos_uri": "Terms of service",
    "policy_uri": "Privacy policy",
    "audiences": "Audiences",
    "access_token_format": "Format of access tokens",
    "tls_client_certificate_bound_access_tokens": "Access tokens are bound to its certificate",
    "dpop_bound_access_tokens": "Access tokens are bound to a DPoP key",
    "contacts": "Contacts",
    "software_id": "Software id",
    "software_version": "Software version",
}
"""The members of a registration that the form has, by name, in the order of the client's page."""
_CHOICES = ("token_endpoint_auth_method", "access_token_format")
_CHECKED = {"grant_types": "grant", "audiences": "audience"}
"""Members of which the form has a checkbox for each value, and the prefix of its name."""
_LISTS = ("redirect_uris", "contacts")
_FLAGS = (
    "tls_client_certificate_bound_access_tokens", "dpop_bound_access_tokens", "skip_consent",
)  # fmt: skip
_TEXTS = (
    "description", "jwks_uri", *CERTIFICATE_NAMES, *SHOWN_URIS, "software_id", "software_version",
)  # fmt: skip


def read_members(form: Mapping[str, str]) -> dict[str, Any]:
    """The members that a form asks for; null is the default. Raises `InvalidClientMetadataError`
    for keys that are not JSON."""
    members: dict[str, Any] = {
        name: form.get(name, "").strip() or None for name in (*_TEXTS, *_CHOICES)
    }
    members |= {name: form.get(name, "").split() or None for name in _LISTS}
    members |= {name: checked(form, prefix) or None for name, prefix in _CHECKED.items()}
    members |= {name: True if name in form else None for name in _FLAGS}
    return {**members, "jwks": _read_keys(form.get("jwks", ""))}


def checked(form: Mapping[str, str], prefix: str) -> list[str]:
    """The values whose checkboxes are checked."""
    return [name.removeprefix(f"{prefix}:") for name in form if name.startswith(f"{prefix}:")]


def _read_keys(text: str) -> object:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        where = getattr(error, "msg", "nested too deep")
        line = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidClientMetadataError(
            f'The public keys must be a JWK set in JSON, such as {{"keys": [...]}}: {where}{line}.',
            member="jwks",
        ) from None


def shown_values(metadata: ClientMetadata, form: Mapping[str, str]) -> dict[str, Any]:
    """Return what the fields show: what was typed, or else the registration."""
    if form:
        return {
            **form,
            **{name: name in form for name in _FLAGS},
            **{name: checked(form, prefix) for name, prefix in _CHECKED.items()},
        }
    values: dict[str, Any] = {name: getattr(metadata, name) or "" for name in LABELS}
    values |= {name: "\n".join(getattr(metadata, name)) for name in _LISTS}
    keys = metadata.jwks
    return {**values, "jwks": json.dumps(keys, indent=2, ensure_ascii=False) if keys else ""}


def choices(policy: ProviderPolicy, metadata: ClientMetadata) -> dict[str, Any]:
    """Return what the form offers: what the provider knows, and what the client has."""
    return {
        "methods": METHODS,
        "formats": FORMATS,
        "grants": _with(policy.grant_types, metadata.grant_types),
        "audiences": _with(sorted(policy.known_audiences), metadata.audiences),
        "labels": LABELS,
    }


def _with(known: Iterable[str], own: Iterable[str]) -> Sequence[str]:
    return list(dict.fromkeys((*known, *own)))


def default_metadata(policy: ProviderPolicy) -> ClientMetadata:
    """Return the registration that a new form shows: the grant of a service, where there is one."""
    grants = (CLIENT_CREDENTIALS,) if CLIENT_CREDENTIALS in policy.grant_types else ()
    return ClientMetadata(grant_types=grants)


def facts_of(metadata: ClientMetadata) -> dict[str, str]:
    """Describe what a client is registered with, but for what has its default."""
    described = metadata.described()
    return {LABELS[name]: _fact(name, described[name]) for name in LABELS if name in described}


def _fact(name: str, value: Any) -> str:
    if name == "jwks":
        keys = value.get("keys", ())
        return ", ".join(str(key.get("kid") or key.get("kty")) for key in keys)
    if name == "token_endpoint_auth_method":
        return f"{value} ({METHODS[value]})"
    if isinstance(value, list):
        return " ".join(value)
    return "yes" if value is True else str(value)
