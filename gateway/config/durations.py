"""Durations as people write them: `500ms`, `30s`, `10m`, `1h`, `30d`. Kept in seconds."""

from __future__ import annotations

import re

PATTERN = r"^(0|[0-9]+(\.[0-9]+)?(ms|s|m|h|d))$"
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_EXPECTED = "expected a duration such as 500ms, 30s, 10m, 1h or 30d"


def parse_duration(value: object) -> float:
    """Seconds. Raises `ValueError` with a text for people."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit, {_EXPECTED}")
    if isinstance(value, str):
        if value == "0":
            return 0.0
        if match := _DURATION.fullmatch(value):
            return float(match[1]) * UNITS_S[match[2]]
    raise ValueError(_EXPECTED)


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= UNITS_S[unit] and seconds % UNITS_S[unit] == 0:
            return f"{int(seconds / UNITS_S[unit])}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0"
