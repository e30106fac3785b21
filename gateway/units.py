"""Kinds of values in settings: durations (`30s`), sizes (`64KiB`), numbers with limits.

As annotations of a plain dataclass they say how the configuration reads its fields, so that the
class a package works with is the section of the file. Elsewhere they are `float` and `int`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, Strict
from pydantic.json_schema import WithJsonSchema

DURATION_PATTERN = r"^(0|[0-9]+(\.[0-9]+)?(ms|s|m|h|d))$"
DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|KB|KiB|MB|MiB|GB|GiB)$"
SIZE_UNITS = {
    "B": 1, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30,
}  # fmt: skip

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_EXPECTED_DURATION = "expected a duration such as 500ms, 30s, 10m, 1h or 30d"
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(B|KB|KiB|MB|MiB|GB|GiB)")
_DIGITS = re.compile(r"[0-9]{1,18}")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,18}")
MAX_DURATION_S = 36500 * 86400.0
MAX_SIZE = 2**50


def parse_duration(value: object) -> float:
    """Parse a duration; returns seconds. Raises `ValueError` with a readable text."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit, {_EXPECTED_DURATION}")
    if isinstance(value, str):
        if value == "0":
            return 0.0
        if match := _DURATION.fullmatch(value):
            seconds = float(match[1]) * DURATION_UNITS_S[match[2]]
            if seconds <= MAX_DURATION_S:
                return seconds
            raise ValueError(f"expected at most {MAX_DURATION_S / DURATION_UNITS_S['d']:.0f}d")
    raise ValueError(_EXPECTED_DURATION)


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= DURATION_UNITS_S[unit] and seconds % DURATION_UNITS_S[unit] == 0:
            return f"{int(seconds / DURATION_UNITS_S[unit])}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0"


def parse_size(value: object) -> int:
    """Parse a size; returns bytes. Raises `ValueError` with a readable text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SIZE:
        return value
    if isinstance(value, str):
        if _DIGITS.fullmatch(value):
            return int(value)
        if match := _SIZE.fullmatch(value):
            size = float(match[1]) * SIZE_UNITS[match[2]]
            if size <= MAX_SIZE:
                return int(size)
            raise ValueError(f"expected at most {MAX_SIZE // SIZE_UNITS['GiB']}GiB")
    raise ValueError("expected a size such as 4096, 64KiB, 1MiB or 10MB")


class Filled(str):
    """Text of the configuration that came from a variable, which may be meant as a number."""

    __slots__ = ()


def _as_int(value: Any) -> Any:
    return int(value) if isinstance(value, Filled) and _INTEGER.fullmatch(value) else value


def _check_positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than 0")
    return seconds


_DURATION_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"const": 0}]}
)
Duration = Annotated[float, BeforeValidator(parse_duration), _DURATION_SCHEMA]
"""Seconds; 0 is "none" or "never", as the key says."""
PositiveDuration = Annotated[
    float, BeforeValidator(parse_duration), AfterValidator(_check_positive), _DURATION_SCHEMA
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer"}]}),
]
"""Bytes."""
READ_INT = BeforeValidator(_as_int)
Int = Annotated[int, Strict(), READ_INT]
Count = Annotated[int, Strict(), Field(ge=0), READ_INT]
PositiveInt = Annotated[int, Strict(), Field(ge=1), READ_INT]
Percent = Annotated[Int, Field(ge=0, le=100)]
