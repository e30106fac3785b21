"""From what another issuer says of a token to what we know of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from gateway.claim_path import ClaimPath, read_values
from gateway.oauth.models import AccessToken, digest_token

MAX_ID_CHARS = 255
_SCOPE = re.compile(r"[!#-\[\]-~]+")
# Decide whose the token is and where it is good: one of another type is not taken for absent.
_DECIDING: Mapping[str, type | tuple[type, ...]] = {
    "act": dict, "aud": (str, list), "may_act": dict, "sub": str, "username": str,
}  # fmt: skip
_IDENTIFYING = frozenset({"act", "client_id", "may_act", "sub", "username"})
"""Are known here by another name, or not at all."""
_REPORTED: Mapping[str, type | tuple[type, ...]] = {"exp": (int, float), "iss": str, "jti": str}
_SAFE = "!#$&'()*+,/;=?@[]^`{|}~"
# What an issuer signs or calls active beside access tokens (RFC 7662 section 4, RFC 8725 section
# 3.11), as Ory Hydra, Keycloak, Cognito and others say it.
_OTHER_KINDS = frozenset(
    {
        "refresh_token", "refresh", "offline", "offline_access", "id_token", "id", "id+jwt",
        "logout", "logout_token", "logout+jwt", "authorization_code", "device_code", "dpop+jwt",
        "client-authentication+jwt", "urn:ietf:params:oauth:token-type:refresh_token",
        "urn:ietf:params:oauth:token-type:id_token",
    }
)  # fmt: skip
"""In lower case."""


def _top(*names: str) -> tuple[ClaimPath, ...]:
    return tuple(ClaimPath((name,)) for name in names)


_SUBJECT = ClaimPath(("sub",))


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Which claims of an issuer say what."""

    client: tuple[ClaimPath, ...] = _top("client_id", "azp", "sub")
    """The first that is there identifies the client."""
    subject: ClaimPath = _SUBJECT
    scopes: tuple[tuple[ClaimPath, ...], ...] = (_top("scope"), _top("scp"))
    """The scopes are those of the first group that has any: of all its claims together."""
    audience: tuple[ClaimPath, ...] = _top("aud")
    """The first that is there is the audience."""
    required: tuple[tuple[ClaimPath, frozenset[str]], ...] = ()
    """Claims that an access token has, and their values."""


DEFAULT_NAMES = ClaimNames()


def is_other_kind(claims: Mapping[str, Any], members: Collection[str]) -> bool:
    """Whether one of these members says that it is no access token."""
    return any(str(claims.get(name)).lower() in _OTHER_KINDS for name in members)


def read_audience(claims: Mapping[str, Any], names: ClaimNames) -> tuple[str, ...]:
    """Return the audience of a token; none where it is not text, or a list of it."""
    for path in names.audience:
        value = path.find(claims)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            return tuple(member for member in values if isinstance(member, str))
    return ()


def has_required(claims: Mapping[str, Any], names: ClaimNames) -> bool:
    """Whether a token has what access tokens of its issuer have."""
    return all(
        not values.isdisjoint(read_values(path.find(claims))) for path, values in names.required
    )


def make_token(
    access_token: str,
    name: str,
    claims: Mapping[str, Any],
    *,
    issued_at: float,
    expires_at: float,
    names: ClaimNames = DEFAULT_NAMES,
    extra: Collection[str] = (),
) -> AccessToken | None:
    """The token of an issuer that is called `name`; None where it does not say whose it is, or
    not so that it can be used.

    Each name in it becomes `NAME:...`, as its client does: a subject is unique within its issuer
    only (RFC 7519 section 4.1.2), and must not pass for one of ours (RFC 9700 section 4.15).
    `extra` are claims to keep for rules and templates.
    """
    client = next(filter(None, (path.find(claims) for path in names.client)), None)
    if not isinstance(client, str) or len(client) > MAX_ID_CHARS:
        return None
    said = _by_usual_names(claims, names)
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
        scopes=read_scopes(claims, names),
        issued_at=issued_at,
        expires_at=expires_at,
        claims=kept,
        extra_claims={key: said[key] for key in extra if key in said and key not in _IDENTIFYING},
    )


def _by_usual_names(claims: Mapping[str, Any], names: ClaimNames) -> dict[str, Any]:
    """The claims that are there, subject and audience being called as usual."""
    said = {key: value for key, value in claims.items() if value is not None}
    if names.subject != _SUBJECT:
        # Never `sub` in its place: the same text would then be someone else.
        said.pop("sub", None)
        if (subject := names.subject.find(claims)) is not None:
            said["sub"] = subject
    if names.audience != DEFAULT_NAMES.audience:
        said["aud"] = list(read_audience(claims, names))
    return said


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


def read_scopes(claims: Mapping[str, Any], names: ClaimNames = DEFAULT_NAMES) -> tuple[str, ...]:
    """The scopes of a token, each claim of them being text (RFC 8693 section 4.2) or a list.

    What can be no scope, such as a role with a blank in its name, is left out.
    """
    for group in names.scopes:
        values = [path.find(claims) for path in group]
        if any(values):
            return tuple(dict.fromkeys(scope for value in values for scope in _split(value)))
    return ()


def _split(scopes: object) -> tuple[str, ...]:
    members = scopes.split() if isinstance(scopes, str) else scopes
    if not isinstance(members, list | tuple):
        return ()
    return tuple(name for name in members if isinstance(name, str) and _SCOPE.fullmatch(name))
