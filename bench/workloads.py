"""What is asked of the subjects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SMALL_PATH = "/api/small"
SMALL_BODY = b"Hello from the origin.\n"
FILES = {"100k": 100 * 1024, "1m": 1024 * 1024}
"""Files of the origin, by name: their size in bytes."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one kind, as many as the subject takes."""

    name: str
    title: str
    path: str = SMALL_PATH
    method: str = "GET"
    body_bytes: int = 0
    varies: Literal["nothing", "head", "token"] = "nothing"
    """What differs from request to request."""
    counts_bytes: bool = False
    """Whether bytes per second tell more than requests per second."""


GET = Workload("get", "GET, small response, one token")
WORKLOADS = (
    GET,
    Workload("distinct", "GET, small response, no two heads alike", varies="head"),
    Workload("post", "POST, 1 KiB body, small response", method="POST", body_bytes=1024),
    Workload("100k", "GET, 100 KiB response", path="/api/file/100k", counts_bytes=True),
    Workload("1m", "GET, 1 MiB response", path="/api/file/1m", counts_bytes=True),
    Workload("miss", "GET, small response, another token each time", varies="token"),
)

BODIES = frozenset({"get", "post", "100k", "1m"})
"""The workloads that any proxy can take."""
