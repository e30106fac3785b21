"""Suggests what was meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_LISTED = 20
"""How many known names an error lists."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return the end of an error text that names the known name nearest to a wrong one; empty where
    none is near."""
    near = get_close_matches(wrong, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def listed(known: Iterable[str]) -> str:
    """Return known names for an error text."""
    names = list(known)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return (", ".join(names[:MAX_LISTED]) or "none") + more
