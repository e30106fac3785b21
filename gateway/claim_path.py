"""Paths to claims of tokens: `realm_access.roles`, `kubernetes.io.pod.name`, `https://app.example/roles`.

A dot leads into an object. A name that holds dots is written in double quotes, as in
`"app.example".roles`, but for those that need none: a URL or URN is one name as a whole, and so is
`kubernetes.io`. A path is read once, when the configuration is loaded, so that its meaning does
not depend on what a token holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

MAX_DEPTH = 8
MAX_CHARS = 256
_WHOLE = re.compile(r"(?:https?://|urn:)[^\"\\{}\s]+")
"""Names that are never split: claims with a namespace, as Auth0 asks for (RFC 7519 section 4.2)."""
_KNOWN = ("kubernetes.io",)
"""Names with dots that are taken as one."""
_NAME = re.compile(r'"([^"\\{}\x00-\x1f\x7f]+)"|([^".\\{}\s\x00-\x1f\x7f]+)')
_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


class ClaimPathError(ValueError):
    """A text that is no path to a claim; the message says why."""


class ClaimPath(NamedTuple):
    """The names on the way to a claim."""

    names: tuple[str, ...]

    @property
    def claim(self) -> str:
        """The claim of the token that it leads into."""
        return self.names[0]

    def find(self, claims: Mapping[str, object]) -> object | None:
        """Return the value, None where there is none."""
        value: object = claims
        for name in self.names:
            if not isinstance(value, Mapping):
                return None
            value = value.get(name)
        return value

    def __str__(self) -> str:
        """As a challenge may show it (RFC 6750 section 3): without quotes."""
        return _UNQUOTABLE.sub("?", ".".join(self.names))


def parse_claim_path(text: str) -> ClaimPath:
    """Read a path. Raises `ClaimPathError`."""
    if len(text) > MAX_CHARS:
        raise ClaimPathError(f"is longer than {MAX_CHARS} characters")
    if _WHOLE.fullmatch(text):
        return ClaimPath((text,))
    names: list[str] = []
    at = 0
    while True:
        known = next((one for one in _KNOWN if _is_at(one, text, at)), None)
        part = _NAME.match(text, at)
        if known is not None:
            names.append(known)
            at += len(known)
        elif part is not None:
            names.append(part[1] or part[2])
            at = part.end()
        else:
            break
        if at == len(text):
            if len(names) > MAX_DEPTH:
                raise ClaimPathError(f"leads into more than {MAX_DEPTH} objects")
            return ClaimPath(tuple(names))
        if text[at] != ".":
            break
        at += 1
    raise ClaimPathError(
        'expected names of claims with dots between them, such as realm_access.roles, or "a.b".c '
        "for a name that holds a dot"
    )


def _is_at(name: str, text: str, at: int) -> bool:
    """Whether a whole name stands at a place."""
    return text.startswith(name, at) and text[at + len(name) : at + len(name) + 1] in {"", "."}


def read_values(value: object) -> tuple[str, ...]:
    """The values of a claim as texts: that of text, a number or a boolean, or all in a list.

    An object has none, nor has `null`. Numbers and booleans are written as in JSON, so that `true`
    and `"true"`, which some issuers write, are the same.
    """
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(text for one in values if (text := _as_text(one)) is not None)


def _as_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return None
