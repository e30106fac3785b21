"""The request target: one canonical path for auth, routing and forwarding.

A check on one interpretation of a path and a forward of
another is how proxies get bypassed, so a target is read once, here; what routing
sees is byte for byte what the upstream gets. What is ambiguous is rejected.

RFC 9112 section 3.2 (forms of the target), RFC 3986 sections 2.3 and 6.2.2
(unreserved characters, normalisation), 5.2.4 (dot segments).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from gateway.http.errors import BadRequestError

# Targets that are canonical as they stand, the common case: no escape, no empty or
# dot-led segment, nothing but visible ASCII in the query. One pass of the regex engine.
_CANONICAL = re.compile(
    r"(?:/|(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*)+/?)(?:\?[!\"$-~]*)?"
)
NO_PATH = re.compile(r"https?://([^/?#@]+)", re.IGNORECASE | re.ASCII)
"""A target in absolute form without a path and a query."""
_ABSOLUTE = re.compile(r"(https?)://([^/?]*)(.*)", re.IGNORECASE | re.ASCII)
_END_OF_PATH = re.compile(r"[?#\0]")
_VISIBLE_ASCII = re.compile(r"[!-~]*")
_PARAMETERS = re.compile(r";[^/]*")
_DOT_PARAMETER = re.compile(r"(?:^|/)\.{0,2};")
_HEX_PAIR = re.compile(r"[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

# What ends a segment, or the path, for a server that decodes too early or too often.
_LAX_BORDERS = frozenset("%;?#/\\\0")
_REFUSED_ESCAPES = frozenset("\x7f") | frozenset(map(chr, range(0x20)))
# An upstream that decodes before it splits would see a path we have not authorized: the route has
# to say that these may pass.
_ESCAPED_SLASH = re.compile("%2F|%5C")
# By the two digits in any case: an escape costs a look-up, and a path may be made of them.
_PAIRS = {
    high + low: chr(int(high + low, 16))
    for high in "0123456789abcdefABCDEF"
    for low in "0123456789abcdefABCDEF"
}
_NORMALISED = {
    pair: character if character in _UNRESERVED else f"%{pair.upper()}"
    for pair, character in _PAIRS.items()
    if character not in _REFUSED_ESCAPES
}
# Others, such as a space or a letter beyond ASCII, are no border of anything.
_LAX = {
    pair: character
    for pair, character in _PAIRS.items()
    if character in _UNRESERVED or character in _LAX_BORDERS
}


class RequestTarget:
    """A request target in the form in which it is matched and forwarded. Immutable."""

    __slots__ = ("authority", "has_escaped_slash", "path", "query", "unmerged_path")

    def __init__(
        self,
        path: str,
        query: str,
        authority: str | None = None,
        *,
        has_escaped_slash: bool = False,
        unmerged_path: str = "",
    ) -> None:
        self.path: Final = path
        """Canonical: leading slash, no empty and no dot segments, no needless escapes."""
        self.query: Final = query
        """As received, with its question mark; empty where there is none."""
        self.authority: Final = authority
        """From an absolute-form target; it overrides the Host header (RFC 9112 section 3.2.2)."""
        self.has_escaped_slash: Final = has_escaped_slash
        """Whether the path has `%2F` or `%5C`, which only some routes forward."""
        self.unmerged_path: Final = unmerged_path
        """The path with its empty segments, which only some routes forward; empty where it has
        none, or dot segments, too."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RequestTarget) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[str, str, str | None]:
        return self.path, self.query, self.authority

    def with_empty_segments(self, prefix: str) -> str:
        """Return the path with its empty segments behind `prefix`, which is a beginning of the
        canonical path. Those in it, and at the start of the path, are merged."""
        kept = prefix.rstrip("/")
        segments = self.unmerged_path.split("/")
        at = 1
        for _ in range(kept.count("/")):
            while not segments[at]:
                at += 1
            at += 1
        rest = "/".join(segments[at:])
        return f"{kept}/{rest}" if kept else "/" + rest.lstrip("/")

    @property
    def other_readings(self) -> Collection[str]:
        """The path as laxer servers read it, which must lead to the same route: those that cut
        `;parameters` off (RFC 3986 section 3.3 leaves that to them), decode reserved
        characters before they look for `;`, `?` and `#`, or decode twice.

        Raises `BadRequestError` where one of these readings climbs."""
        if ";" not in self.path and "%" not in self.path:
            return ()
        return _read_laxly(self.path)


def parse_target(raw: str) -> RequestTarget:
    """Read a request target. Raises `BadRequestError` for one that is malformed or ambiguous."""
    if _CANONICAL.fullmatch(raw):
        path, mark, query = raw.partition("?")
        return RequestTarget(path, mark + query)
    return _parse_unusual_target(raw)


def is_canonical_path(path: str, *, may_have_escaped_slash: bool = False) -> bool:
    """Whether a path is its own canonical form, as the paths of routes must be."""
    try:
        target = parse_target(path)
    except BadRequestError:
        return False
    if target.has_escaped_slash and not may_have_escaped_slash:
        return False
    return target.path == path and target.authority is None and not target.query


def _parse_unusual_target(raw: str) -> RequestTarget:
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
    unresolved = _normalise_escapes(path)
    path = _resolve(unresolved)
    return RequestTarget(
        path,
        mark + query,
        authority,
        has_escaped_slash="%" in path and _ESCAPED_SLASH.search(path) is not None,
        unmerged_path="" if "//" not in unresolved or _has_dots(unresolved) else unresolved,
    )


def _has_dots(path: str) -> bool:
    return "/./" in f"{path}/" or "/../" in f"{path}/"


def _read_laxly(path: str) -> Collection[str]:
    readings: dict[str, None] = {}
    for _ in range(3):
        cut = _END_OF_PATH.split(path.replace("\\", "/"), maxsplit=1)[0]
        bare = _PARAMETERS.sub("", cut) if ";" in cut else cut
        if "/../" in f"{bare}/":
            # No client means that; and behind a prefix that a rewrite adds, it would climb out of
            # it.
            raise BadRequestError("target_readings", "The path is ambiguous.")
        readings[_resolve(cut)] = readings[_resolve(bare)] = None
        first, *rest = path.split("%")
        if not rest:
            break
        decoded = first + "".join([_decode_laxly(part) for part in rest])
        if decoded == path:
            break
        path = decoded
    return readings


def _decode_laxly(part: str) -> str:
    character = _LAX.get(part[:2])
    return f"%{part}" if character is None else character + part[2:]


def _resolve(path: str) -> str:
    """Drop the segments that are empty or dots (RFC 3986 section 5.2.4)."""
    if "//" not in path and "/." not in path:
        return path or "/"
    kept: list[str] = []
    segment = ""
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    is_directory = segment in {"", ".", ".."} and kept
    return "/" + "/".join(kept) + ("/" if is_directory else "")


def _normalise_escapes(path: str) -> str:
    if "\\" in path:
        raise BadRequestError("target_backslash", "The path has a backslash.")
    if "%" in path:
        first, *rest = path.split("%")
        path = first + "".join([_normalise_escape(part) for part in rest])
    if ";" in path and _DOT_PARAMETER.search(path):
        # `/public/..;/protected`: some servers drop the parameter, then climb.
        raise BadRequestError("target_dot_parameter", "The path has a dot segment with parameters.")
    return path


def _normalise_escape(part: str) -> str:
    """Write the escape at the start of `part`, whose percent sign is cut off, as it should be."""
    known = _NORMALISED.get(part[:2])
    if known is not None:
        return known + part[2:]
    if not _HEX_PAIR.fullmatch(part[:2]):
        raise BadRequestError("target_escape", "The path has a malformed percent-escape.")
    raise BadRequestError("target_escape", "The path has an escaped control character.")


def refused_escape() -> BadRequestError:
    """The error for an escaped slash that no route forwards."""
    return BadRequestError("target_escape", "The path has an escaped slash or backslash.")
