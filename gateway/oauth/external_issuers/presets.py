"""How well-known issuers write their access tokens.

Each preset names the claims of the client, the subject, the scopes and the audience, and what only
an access token has: an ID token, which the same keys sign, may have the same audience (RFC 8725
section 3.11). `docs/guides` quotes a token of each.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.claim_path import ClaimPath
from gateway.oauth.external_issuers.claims import ClaimNames


def _top(*names: str) -> tuple[ClaimPath, ...]:
    return tuple(ClaimPath((name,)) for name in names)


PRESETS: Mapping[str, ClaimNames] = {
    # `typ` is a claim beside the header of that name; realm roles are in `realm_access.roles`.
    "keycloak": ClaimNames(
        client=_top("azp", "client_id"),
        scopes=(_top("scope"),),
        required=((ClaimPath(("typ",)), frozenset({"Bearer", "DPoP"})),),
    ),
    # `sub` differs for each application, `oid` does not. Daemons have roles, and no scopes.
    "entra": ClaimNames(
        client=_top("azp", "appid"),
        subject=ClaimPath(("oid",)),
        scopes=(_top("scp"), _top("roles")),
    ),
    "okta": ClaimNames(client=_top("cid"), scopes=(_top("scp"),)),
    # `client_id` in tokens of the profile of RFC 9068.
    "auth0": ClaimNames(client=_top("azp", "client_id"), scopes=(_top("scope"),)),
    # There is an `aud` only where a resource was requested.
    "cognito": ClaimNames(
        client=_top("client_id"),
        scopes=(_top("scope"),),
        audience=_top("aud", "client_id"),
        required=((ClaimPath(("token_use",)), frozenset({"access"})),),
    ),
    # A service account is client and subject, and has no scopes.
    "kubernetes": ClaimNames(client=_top("sub"), scopes=()),
}
