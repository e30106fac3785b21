"""Narrows what a client asks for in a registration over HTTP to what is offered to it.

RFC 7591 section 3.2.1: the provider may replace what it does not offer, and says in the response
what was registered. Operators get an error instead: they can correct their request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args
from urllib.parse import urlsplit

from gateway.oauth.client_metadata import (
    SHOWN_URIS,
    ClientMetadata,
    check_known,
    check_redirect_uri,
    is_loopback,
    is_web_url,
    read_metadata,
)
from gateway.oauth.errors import InvalidClientMetadataError, InvalidRedirectUriError
from gateway.oauth.models import AuthMethod
from gateway.oauth.policy import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    REFRESH_TOKEN,
    ProviderPolicy,
)


@dataclass(frozen=True, slots=True)
class RequestedRegistration:
    """A registration request over HTTP, as far as it is offered."""

    metadata: ClientMetadata
    scopes: tuple[str, ...] | None
    """None where the request names none, and where the client gets all that there are."""
    names_grant_types: bool


def read_registration(
    members: Mapping[str, object], scope: str | None, policy: ProviderPolicy
) -> RequestedRegistration:
    """Read the members of a request and leave out what this provider does not offer.

    Raises `InvalidClientMetadataError` where nothing of a member is left, or it can't be read.
    """
    is_public = policy.registration_mode == "public"
    metadata = read_metadata(_replace_members(members, is_public=is_public))
    names_grants = members.get("grant_types") is not None
    grants = metadata.grant_types if names_grants else _default_grants(metadata, policy)
    offered = [grant for grant in grants if grant in policy.registrable_grant_types]
    if metadata.token_endpoint_auth_method == "none" and len(offered) > 1:
        # Such a client can't use it.
        offered = [grant for grant in offered if grant != CLIENT_CREDENTIALS]
    if set(offered) <= {REFRESH_TOKEN}:
        check_known("grant type", grants, policy.registrable_grant_types)
        raise InvalidClientMetadataError("grant_types must name one that gives a first token.")
    return RequestedRegistration(
        replace(
            metadata,
            grant_types=tuple(offered),
            response_types=_narrow_response_types(metadata, offered),
            redirect_uris=_narrow_redirects(metadata, policy),
        ),
        # Each is a user's to consent to. A client that registers for what it needs first could
        # not ask for more later.
        None if is_public else _narrow_scopes(scope, policy),
        names_grants,
    )


def _replace_members(members: Mapping[str, object], *, is_public: bool) -> dict[str, object]:
    """Without what is empty or of no use here, and with a way to authenticate that there is."""
    kept = {name: value for name, value in members.items() if value != ""}
    for name in SHOWN_URIS:
        uri = kept.get(name)
        if isinstance(uri, str) and not is_web_url(uri):
            del kept[name]
    method = kept.get("token_endpoint_auth_method")
    if is_public:
        kept["token_endpoint_auth_method"] = "none"
    elif isinstance(method, str) and method not in get_args(AuthMethod):
        kept["token_endpoint_auth_method"] = "client_secret_basic"
    if kept.get("token_endpoint_auth_method") == "none":
        kept.pop("jwks", None)
        kept.pop("jwks_uri", None)
    return kept


def _default_grants(metadata: ClientMetadata, policy: ProviderPolicy) -> Sequence[str]:
    """RFC 7591 section 2 says `authorization_code`; where that is impossible, what machines use."""
    offered = policy.registrable_grant_types
    is_only = CLIENT_CREDENTIALS not in offered
    if AUTHORIZATION_CODE in offered and (metadata.redirect_uris or is_only):
        return (AUTHORIZATION_CODE,)
    return (CLIENT_CREDENTIALS,)


def _narrow_response_types(metadata: ClientMetadata, grants: Sequence[str]) -> tuple[str, ...]:
    requested = metadata.response_types
    if requested and "code" not in requested:
        raise InvalidClientMetadataError("response_types can only name code.")
    return ("code",) if requested and AUTHORIZATION_CODE in grants else ()


def _narrow_redirects(metadata: ClientMetadata, policy: ProviderPolicy) -> tuple[str, ...]:
    """Without those that are not taken here. Raises `InvalidRedirectUriError` where none is
    left."""
    offered: list[str] = []
    first: InvalidRedirectUriError | None = None
    for uri in metadata.redirect_uris:
        try:
            check_redirect_uri(uri, policy.redirect_schemes)
            if policy.registration_mode == "public":
                _check_public_redirect(uri, policy)
        except InvalidRedirectUriError as error:
            first = first or error
        else:
            offered.append(uri)
    if first is not None and not offered:
        raise first
    return tuple(offered)


def _check_public_redirect(uri: str, policy: ProviderPolicy) -> None:
    """Check that a client that any peer may register gets responses on the user's device, or at a
    host that the operator knows."""
    parts = urlsplit(uri)
    scheme, host = parts.scheme.lower(), parts.hostname or ""
    if (
        scheme in policy.redirect_schemes
        or (scheme in {"http", "https"} and is_loopback(host))
        or (scheme == "https" and is_known_host(host, policy.redirect_hosts))
    ):
        return
    raise InvalidRedirectUriError(
        f"The redirect URI {uri[:200]!r} must be on a loopback address, of a scheme in "
        "registration.redirect_schemes, or at a host in registration.redirect_hosts."
    )


def may_register_origin(origin: str, policy: ProviderPolicy) -> bool:
    """Whether a page of this origin could be the redirect URI of a client in mode `public`."""
    try:
        check_redirect_uri(f"{origin}/", ())
        _check_public_redirect(f"{origin}/", policy)
    except InvalidRedirectUriError:
        return False
    return True


def is_known_host(host: str, known: Sequence[str]) -> bool:
    """Whether a host is one of `known`, or below one that begins with `*.`."""
    return any(host == one or (one[:2] == "*." and host.endswith(one[1:])) for one in known)


def _narrow_scopes(scope: str | None, policy: ProviderPolicy) -> tuple[str, ...] | None:
    if scope is None:
        return None
    requested = tuple(dict.fromkeys(scope.split()))
    offered = tuple(name for name in requested if name in policy.registrable_scopes)
    if requested and not offered and policy.scopes:
        check_known("scope", requested, policy.registrable_scopes)
    return offered
