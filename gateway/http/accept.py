"""Reads Accept (RFC 9110 section 12.5.1): how much a client wants a media type."""

from __future__ import annotations

import re

_WEIGHT = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.ASCII)


def quality(accept: str, media_type: str, *, named: bool = False) -> float:
    """The weight of a media type, given in lower case without parameters: 0 where it is not
    accepted. The range that names it most closely decides; without Accept, everything is 1.

    `named` leaves ranges such as `*/*` out: for a type that only those understand who ask for it.
    """
    if not accept.strip():
        return 0.0 if named else 1.0
    ranges = (f"{media_type.partition('/')[0]}/*", media_type)
    best = (-1, 0.0)
    for member in accept.lower().split(","):
        name, *parameters = [part.strip() for part in member.split(";")]
        closeness = ranges.index(name) + 1 if name in ranges else 0 if name == "*/*" else -1
        # Of a type that is named in several versions, the one wanted most counts.
        best = max(best, (closeness, _weight(parameters)))
    return best[1] if best[0] >= (2 if named else 0) else 0.0


def _weight(parameters: list[str]) -> float:
    """1 where none is given; 0 for one that can't be read."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return float(value) if _WEIGHT.fullmatch(value.strip()) else 0.0
    return 1.0
