"""What is asked of the subjects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SMALL_PATH = "/api/small"
SMALL_BODY = b"Hello from the origin.\n"
VARIED_PATH = "/api/varied"
"""The same body, with another ETag each time, and the request id echoed."""
FILES = {"16k": 16 * 1024, "100k": 100 * 1024, "1m": 1024 * 1024}
"""Files of the origin, by name: their size in bytes."""
VARIED_TOKENS = 50
"""Of requests whose heads vary; lines of the token file."""


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
    is_tls: bool = False


VARIED = Workload(
    "varied", "GET, heads and responses vary", path=VARIED_PATH, varies="head"
)  # fmt: skip
GET = Workload("get", "GET, one head again and again")
WORKLOADS = (
    VARIED,
    Workload("distinct", "GET, heads vary, responses don't", varies="head"),
    Workload("tls", "GET over TLS 1.3, heads and responses vary", path=VARIED_PATH,
             varies="head", is_tls=True),
    Workload("post", "POST, 1 KiB body, small response", method="POST", body_bytes=1024),
    Workload("16k", "GET, 16 KiB response, heads vary", path="/api/file/16k", varies="head"),
    Workload("100k", "GET, 100 KiB response, heads vary", path="/api/file/100k", varies="head",
             counts_bytes=True),
    Workload("1m", "GET, 1 MiB response, heads vary", path="/api/file/1m", varies="head",
             counts_bytes=True),
    Workload("tls-100k", "GET over TLS 1.3, 100 KiB response, heads vary",
             path="/api/file/100k", varies="head", counts_bytes=True, is_tls=True),
    Workload("miss", "GET, small response, another token each time", varies="token"),
    GET,
)  # fmt: skip

PLAIN = frozenset({"varied", "distinct", "post", "16k", "100k", "1m", "get"})
"""The workloads that any proxy can take."""
TLS = frozenset({"tls", "tls-100k"})
