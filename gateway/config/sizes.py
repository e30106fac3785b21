"""Sizes as people write them: `512`, `64KiB`, `1MiB`, `10MB`. Kept in bytes."""

from __future__ import annotations

import re

PATTERN = r"^[0-9]+(\.[0-9]+)?(B|KB|KiB|MB|MiB|GB|GiB)$"
UNITS = {
    "B": 1, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30,
}  # fmt: skip

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(B|KB|KiB|MB|MiB|GB|GiB)")
_DIGITS = re.compile(r"[0-9]{1,18}")


def parse_size(value: object) -> int:
    """Bytes. Raises `ValueError` with a text for people."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        if _DIGITS.fullmatch(value):
            return int(value)
        if match := _SIZE.fullmatch(value):
            return int(float(match[1]) * UNITS[match[2]])
    raise ValueError("expected a size such as 4096, 64KiB, 1MiB or 10MB")
