"""gRPC as a proxy has to know it: content type, statuses, messages and deadlines.

Messages pass unread. What is left is in fields: which requests are gRPC, how a response that the
gateway makes has to look so that its client understands it, and how long the client waits.

"gRPC over HTTP2" (PROTOCOL-HTTP2.md) and "HTTP to gRPC Status Code Mapping" in gRPC's own
documentation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from gateway.http.fields import Field

CONTENT_TYPE = b"application/grpc"

OK = 0
CANCELLED = 1
UNKNOWN = 2
DEADLINE_EXCEEDED = 4
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16

_BY_HTTP_STATUS = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    405: UNIMPLEMENTED,
    408: CANCELLED,
    413: RESOURCE_EXHAUSTED,
    429: RESOURCE_EXHAUSTED,
    431: RESOURCE_EXHAUSTED,
    499: CANCELLED,
    500: INTERNAL,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
"""gRPC's table has 14 for 429 also, upon which clients retry at once: not what a quota wants."""

_AS_HTTP_STATUS = {UNKNOWN: 500, INTERNAL: 500, UNAVAILABLE: 503, DATA_LOSS: 500}
"""The failures of a server, as outlier detection counts them. A deadline is not among them: it is
the client's, who could have any endpoint ejected with a short one."""

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_STATUS = re.compile(rb"[0-9]{1,3}")
# Percent-Byte-Unencoded: visible ASCII and the space, but for the percent sign.
_MESSAGE_SAFE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}~"


def is_grpc(content_type: bytes) -> bool:
    """Whether a Content-Type is that of gRPC: not that of gRPC-Web, which is plain HTTP/1.1."""
    return content_type.startswith(CONTENT_TYPE) and content_type[16:17] in (b"", b"+", b";", b" ")


def status_for(http_status: int) -> int:
    """The status that stands for a response of HTTP."""
    return _BY_HTTP_STATUS.get(http_status, UNKNOWN)


def http_status_for(status: int, http_status: int) -> int:
    """Return what outlier detection takes a response for: the status of HTTP, unless that of gRPC
    says that the server failed."""
    return _AS_HTTP_STATUS.get(status, http_status)


def read_status(fields: Sequence[Field]) -> int:
    """The `grpc-status` among fields; -1 where there is none."""
    for name, value in fields:
        if name.lower() == b"grpc-status":
            return int(value) if _STATUS.fullmatch(value) else UNKNOWN
    return -1


def encode_message(text: str) -> str:
    """A text as `grpc-message` has it, percent-encoded."""
    return quote(text, safe=_MESSAGE_SAFE)


def read_timeout(value: bytes) -> float | None:
    """The seconds of a `grpc-timeout`; None for one that is malformed."""
    found = _TIMEOUT.fullmatch(value)
    return None if found is None else int(found[1]) * _UNIT_S[found[2]]


def render_timeout(seconds: float) -> bytes:
    """A `grpc-timeout`: never more than `seconds`, and never 0, which not every server takes."""
    if seconds < 10.0:
        return b"%du" % max(1, int(seconds * 1e6))
    if seconds < 36_000.0:
        return b"%dm" % int(seconds * 1e3)
    return b"%dS" % min(99_999_999, int(seconds))
