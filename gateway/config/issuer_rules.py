"""Check that the issuers of a configuration fit each other, and the provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.config.problems import Path

Finding = tuple[Path, str]
AUTH0 = "auth0"
URL_SCHEMES = ("http", "https", "spiffe")
"""Client ids may be URLs, which those of an issuer of such a name would look like."""


def check_issuers(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that the names of issuers, which prefix their client ids, are unique, and that a token
    is of one of them only."""
    provider = tree.get("provider")
    own = provider.get("issuer") if isinstance(provider, dict) else None
    sign_in = _sign_in_provider(provider)
    names: dict[str, str] = {}
    for section in ("jwt_issuers", "introspection_servers"):
        for at, issuer in _sections(tree, section):
            name, place = issuer.get("name"), f"{section}[{at}]"
            if isinstance(name, str) and names.setdefault(name, place) != place:
                yield (section, at, "name"), f"is the name of {names[name]} too"
            if name in URL_SCHEMES:
                yield (
                    (section, at, "name"),
                    f"its client ids would begin as URLs do ({name}:), expected another name",
                )
            url = issuer.get("issuer")
            is_same = url == sign_in.get("issuer") and sign_in.get("subject_claim", "sub") == "sub"
            if isinstance(name, str) and name == sign_in.get("name", "oidc") and not is_same:
                yield (
                    (section, at, "name"),
                    "is the name of provider.users.oidc too: subjects of both would be one user",
                )
            if own is not None and url == own:
                yield (section, at, "issuer"), "is our own issuer, whose tokens are known anyway"
    yield from _check_jwt_issuers(tree)


def _check_jwt_issuers(tree: Mapping[str, Any]) -> Iterator[Finding]:
    audiences: dict[str, dict[str, int]] = {}
    for at, issuer in _sections(tree, "jwt_issuers"):
        where: Path = ("jwt_issuers", at)
        url, named = issuer.get("issuer"), issuer.get("audience")
        if not isinstance(url, str):
            continue
        known = audiences.setdefault(url, {})
        for name in named if isinstance(named, list) else []:
            if isinstance(name, str) and known.setdefault(name, at) != at:
                yield (
                    (*where, "issuer"),
                    f"is that of jwt_issuers[{known[name]}] too, and so is the audience {name!r}: "
                    "list all audiences there, or let them differ",
                )
                break
        if issuer.get("preset") == AUTH0 and not url.endswith("/"):
            yield (*where, "issuer"), f"expected a slash at its end, as Auth0 writes it: {url}/"
        keys_at = issuer.get("jwks_uri") or url
        if issuer.get("token_file") and not str(keys_at).startswith("https:"):
            yield (
                (*where, "token_file"),
                "the token would be sent in clear, expected https in "
                f"{'jwks_uri' if issuer.get('jwks_uri') else 'issuer'}",
            )


def _sections(tree: Mapping[str, Any], key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    raw = tree.get(key)
    for at, section in enumerate(raw if isinstance(raw, list) else []):
        if isinstance(section, dict):
            yield at, section


def _sign_in_provider(provider: object) -> Mapping[str, Any]:
    """The section of the OpenID provider at which users sign in, empty without one."""
    users = provider.get("users") if isinstance(provider, dict) else None
    oidc = users.get("oidc") if isinstance(users, dict) else None
    return oidc if isinstance(oidc, dict) else {"name": None}
