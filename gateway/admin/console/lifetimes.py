"""Lifetimes that forms offer, for what is shown once and expires."""

from __future__ import annotations

from gateway.admin.console.site import Visit
from gateway.oauth.errors import InvalidClientMetadataError

DAY_S = 86400.0
LIFETIMES = {"30": "30 days", "90": "90 days", "365": "a year", "": "no expiry"}
"""What a form offers, in days."""


def read_lifetime(visit: Visit) -> float:
    """The lifetime that was chosen, in seconds, 0 for none. Raises `InvalidClientMetadataError`."""
    days = visit.text("lifetime")
    if days not in LIFETIMES:
        raise InvalidClientMetadataError(
            f"Unknown lifetime {days[:100]!r} (known: {', '.join(LIFETIMES.values())}).",
            member="lifetime",
        )
    return float(days) * DAY_S if days else 0.0
