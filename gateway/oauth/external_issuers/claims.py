"""From what another issuer says of a token to what we know of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gateway.oauth.models import AccessToken, digest_token

MAX_ID_CHARS = 255
_SCOPE = re.compile(r"[!#-\[\]-~]+")
# Decide whose the token is and where it is good: one of another type is not taken for absent.
_DECIDING: Mapping[str, type | tuple[type, ...]] = {
    "act": dict, "aud": (str, list), "may_act": dict, "sub": str, "username": str,
}  # fmt: skip
_REPORTED: Mapping[str, type | tuple[type, ...]] = {"exp": (int, float), "iss": str, "jti": str}
_SAFE = "!#$&'()*+,/;=?@[]^`{|}~"


def make_token(
    access_token: str, name: str, claims: Mapping[str, Any], *, issued_at: float, expires_at: float
) -> AccessToken | None:
    """The token of an issuer that is called `name`; None where it does not say whose it is, or
    not so that it can be used.

    Each name in it becomes `NAME:...`, as its client does: a subject is unique within its issuer
    only (RFC 7519 section 4.1.2), and must not pass for one of ours (RFC 9700 section 4.15).
    """
    client = claims.get("client_id") or claims.get("azp") or claims.get("sub")
    if not isinstance(client, str) or len(client) > MAX_ID_CHARS:
        return None
    said = {key: value for key, value in claims.items() if value is not None}
    kept: dict[str, Any] = {}
    for key, kind in _DECIDING.items():
        if key in said and not isinstance(said[key], kind):
            return None
        if key in said:
            kept[key] = said[key]
    kept |= {key: said[key] for key, kind in _REPORTED.items() if isinstance(said.get(key), kind)}
    if not all(isinstance(one, str) for one in kept.get("aud", ())):
        return None
    for key in ("sub", "username"):
        if key in kept:
            kept[key] = qualify(name, kept[key])
    if "act" in kept:
        kept["act"] = _qualify_actors(name, kept["act"])
    confirmation = said.get("cnf")
    if confirmation is not None:
        if not isinstance(confirmation, dict) or not all(
            isinstance(confirmation.get(method, ""), str) for method in ("jkt", "x5t#S256")
        ):
            return None
        kept["cnf"] = confirmation
    client_id = qualify(name, client)
    return AccessToken(
        digest=digest_token(access_token),
        client_id=client_id,
        client_name=client_id,
        scopes=read_scopes(claims),
        issued_at=issued_at,
        expires_at=expires_at,
        claims=kept,
    )


def qualify(name: str, subject: str) -> str:
    """The name of a client or user of the issuer that is called `name`. Escaped, so that the only
    colon is the one that no name of ours has."""
    return f"{name}:{quote(subject, safe=_SAFE, errors='surrogatepass')}"


def _qualify_actors(name: str, actor: dict[str, Any]) -> dict[str, Any]:
    """The chain of actors (RFC 8693 section 4.1) with the issuer in each name."""
    chain: list[dict[str, Any]] = []
    inner: Any = actor
    while isinstance(inner, dict):
        chain.append(
            {
                key: qualify(name, value) if key in {"sub", "client_id"} else value
                for key, value in inner.items()
                if key != "act" and isinstance(value, str)
            }
        )
        inner = inner.get("act")
    qualified = chain.pop()
    while chain:
        qualified = {**chain.pop(), "act": qualified}
    return qualified


def read_scopes(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """`scope` (RFC 8693 section 4.2), or the `scp` of some issuers, as text or list."""
    scopes = claims.get("scope") or claims.get("scp") or ()
    names = scopes.split() if isinstance(scopes, str) else scopes
    if not isinstance(names, list | tuple):
        return ()
    found = (name for name in names if isinstance(name, str) and _SCOPE.fullmatch(name))
    return tuple(dict.fromkeys(found))
