"""Narrows what a client asks for in a registration over HTTP to what is offered to it.

RFC 7591 section 3.2.1: the provider may replace what it does not offer, and says in the response
what was registered. Operators get an error instead: they can correct their request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.oauth.client_metadata import (
    ClientMetadata,
    check_known,
    is_offered_redirect,
    read_metadata,
)
from gateway.oauth.errors import InvalidClientMetadataError
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
    """None where the request names none."""
    names_grant_types: bool


def read_registration(
    members: Mapping[str, object], scope: str | None, policy: ProviderPolicy
) -> RequestedRegistration:
    """Read the members of a request and leave out what this provider does not offer.

    Raises `InvalidClientMetadataError` where nothing of a member is left, or it can't be read.
    """
    metadata = read_metadata(members)
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
        _narrow_scopes(scope, policy),
        names_grants,
    )


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
    """Without those of schemes that are not taken here; all of them, for the error, where none is
    left."""
    schemes = policy.redirect_schemes
    offered = tuple(uri for uri in metadata.redirect_uris if is_offered_redirect(uri, schemes))
    return offered or metadata.redirect_uris


def _narrow_scopes(scope: str | None, policy: ProviderPolicy) -> tuple[str, ...] | None:
    if scope is None:
        return None
    requested = tuple(dict.fromkeys(scope.split()))
    offered = tuple(name for name in requested if name in policy.registrable_scopes)
    if requested and not offered and policy.scopes:
        check_known("scope", requested, policy.registrable_scopes)
    return offered
