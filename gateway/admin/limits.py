"""A client's own rate limit in JSON: `{"requests": 100, "per_seconds": 1, "burst": 50}`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gateway.admin.problems import ProblemError
from gateway.rate_limit import RateLimit


def describe_limit(limit: RateLimit) -> dict[str, object]:
    """The members of a limit."""
    return {"requests": limit.requests, "per_seconds": limit.per_s, "burst": limit.burst}


def read_limit(body: Mapping[str, Any]) -> RateLimit:
    """The limit in a request; `burst` is as `requests` where it is not given.

    Raises `ProblemError`.
    """
    requests = _whole(body, "requests")
    per_s = body.get("per_seconds", 1)
    if isinstance(per_s, bool) or not isinstance(per_s, int | float):
        per_s = math.nan
    if not 0 < per_s < math.inf:
        raise ProblemError(400, "per_seconds", "per_seconds must be a number above 0.")
    burst = requests if body.get("burst") is None else _whole(body, "burst")
    return RateLimit(requests, float(per_s), burst)


def _whole(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ProblemError(400, name, f"{name} must be a whole number from 1.")
    return value
