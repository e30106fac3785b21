"""From what another issuer says of a token to what we know of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gateway.oauth.models import AccessToken, digest_token

MAX_ID_CHARS = 255
_SCOPE = re.compile(r"[!#-\[\]-~]+")
_KEPT: Mapping[str, type | tuple[type, ...]] = {
    "act": dict, "aud": (str, list), "exp": (int, float), "iss": str, "jti": str,
    "may_act": dict, "sub": str, "username": str,
}  # fmt: skip
_SAFE = "!#$&'()*+,/;=?@[]^`{|}~"


def make_token(
    access_token: str, name: str, claims: Mapping[str, Any], *, issued_at: float, expires_at: float
) -> AccessToken | None:
    """The token of an issuer that is called `name`; None where it does not say whose it is."""
    client = claims.get("client_id") or claims.get("azp") or claims.get("sub")
    if not isinstance(client, str) or len(client) > MAX_ID_CHARS:
        return None
    confirmation = claims.get("cnf")
    if confirmation is not None and not isinstance(confirmation, dict):
        return None
    client_id = f"{name}:{quote(client, safe=_SAFE)}"
    kept = {key: claims[key] for key, kind in _KEPT.items() if isinstance(claims.get(key), kind)}
    if isinstance(kept.get("aud"), list):
        kept["aud"] = [one for one in kept["aud"] if isinstance(one, str)]
    if confirmation is not None:
        kept["cnf"] = confirmation
    return AccessToken(
        digest=digest_token(access_token),
        client_id=client_id,
        client_name=client_id,
        scopes=read_scopes(claims),
        issued_at=issued_at,
        expires_at=expires_at,
        claims=kept,
    )


def read_scopes(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """`scope` (RFC 8693 section 4.2), or the `scp` of some issuers, as text or list."""
    scopes = claims.get("scope") or claims.get("scp") or ()
    names = scopes.split() if isinstance(scopes, str) else scopes
    if not isinstance(names, list | tuple):
        return ()
    found = (name for name in names if isinstance(name, str) and _SCOPE.fullmatch(name))
    return tuple(dict.fromkeys(found))
