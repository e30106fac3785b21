"""The request target: one canonical path for auth, routing and forwarding.

First step of the request path. A check on one reading of a path and a forward of
another is how proxies get bypassed, so a target is read once, here; what routing
sees is byte for byte what the upstream gets. What has two readings is refused.

RFC 9112 section 3.2 (forms of the target), RFC 3986 sections 2.3 and 6.2.2
(unreserved characters, normalisation), 5.2.4 (dot segments).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.proxy.problems import BadRequestError

# Targets that are canonical as they stand, the common case: no escape, no empty or
# dot-led segment, nothing but visible ASCII in the query. One pass of the regex engine.
_CANONICAL = re.compile(
    r"(?:/|(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*)+/?)(?:\?[!\"$-~]*)?"
)
_ABSOLUTE = re.compile(r"(https?)://([^/?]*)(.*)", re.IGNORECASE)
_VISIBLE_ASCII = re.compile(r"[!-~]*")
_ESCAPE = re.compile(r"%(.{0,2})")
_HEX_PAIR = re.compile(r"[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

# An upstream that decodes before it splits would see a path we have not judged.
_REFUSED_ESCAPES = frozenset("/\\\x7f") | frozenset(map(chr, range(0x20)))


class Target(NamedTuple):
    """A request target in the form in which it is matched and forwarded."""

    path: str
    """Canonical: leading slash, no empty and no dot segments, no needless escapes."""
    query: str
    """As received, with its question mark; empty where there is none."""
    authority: str | None = None
    """From an absolute-form target; it overrides the Host header (RFC 9112 section 3.2.2)."""

    @property
    def path_without_parameters(self) -> str | None:
        """The path as servers read it that cut `;parameters` off every segment (RFC 3986
        section 3.3 leaves that to them), or None where there are none."""
        if ";" not in self.path:
            return None
        return "/".join(segment.partition(";")[0] for segment in self.path.split("/"))


def parse_target(raw: str) -> Target:
    """Read a request target. Raises `BadRequestError` for one that has no single reading."""
    if _CANONICAL.fullmatch(raw):
        path, mark, query = raw.partition("?")
        return Target(path, mark + query)
    return _parse_unusual_target(raw)


def is_canonical_path(path: str) -> bool:
    """Whether a path is its own canonical form, as the paths of routes must be."""
    try:
        return parse_target(path) == Target(path, "")
    except BadRequestError:
        return False


def _parse_unusual_target(raw: str) -> Target:
    if not _VISIBLE_ASCII.fullmatch(raw):
        raise BadRequestError("target_characters", "The request target is not visible ASCII.")
    if "#" in raw:
        raise BadRequestError("target_fragment", "A request target has no fragment.")
    authority = None
    if absolute := _ABSOLUTE.fullmatch(raw):
        authority, raw = absolute[2], absolute[3]
        if not authority or "@" in authority:
            raise BadRequestError("target_authority", "The authority of the target is not valid.")
        if not raw.startswith("/"):
            raw = "/" + raw
    if not raw.startswith("/"):
        raise BadRequestError("target_form", "The request target is not a path.")
    path, mark, query = raw.partition("?")
    return Target(_normalise_path(path), mark + query, authority)


def _normalise_path(path: str) -> str:
    if "\\" in path:
        raise BadRequestError("target_backslash", "The path has a backslash.")
    segments: list[str] = []
    segment = ""
    for segment in _ESCAPE.sub(_normalise_escape, path).split("/"):
        name, mark, _ = segment.partition(";")
        if mark and name in {"", ".", ".."}:
            # `/public/..;/protected`: some servers drop the parameter, then climb.
            raise BadRequestError("target_dot_parameter", "A dot segment has a parameter.")
        if segment == "..":
            del segments[-1:]
        elif segment not in {"", "."}:
            segments.append(segment)
    is_directory = segment in {"", ".", ".."} and segments
    return "/" + "/".join(segments) + ("/" if is_directory else "")


def _normalise_escape(escape: re.Match[str]) -> str:
    pair = escape[1]
    if not _HEX_PAIR.fullmatch(pair):
        raise BadRequestError("target_escape", "The path has a malformed percent-escape.")
    character = chr(int(pair, 16))
    if character in _REFUSED_ESCAPES:
        raise BadRequestError(
            "target_escape", "The path has an escaped slash, backslash or control character."
        )
    return character if character in _UNRESERVED else f"%{pair.upper()}"
