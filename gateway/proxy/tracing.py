"""Spans of requests, as far as the request path knows them. Without tracing there are none.

The request path only says what happens; what a span is and where it goes is the business
of `gateway.app.tracing`, which alone knows OpenTelemetry.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from gateway.downstream.request import Request
from gateway.http.request_head import RequestHead

MAX_TRACESTATE_MEMBERS = 32

# W3C Trace Context section 3.2: of a later version only what version 00 has is read.
TRACEPARENT = re.compile(
    rb"(?!ff)(?:00|(?P<later>(?!00)[0-9a-f]{2}))-(?P<trace>(?!0{32})[0-9a-f]{32})"
    rb"-(?P<parent>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?(later)(?:-.*)?)"
)
# Section 3.3.1: key and value of a member of the list.
_MEMBER = re.compile(
    rb"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    rb"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)


class TraceParent(NamedTuple):
    """The caller's trace context."""

    trace_id: int
    span_id: int
    flags: int
    state: tuple[tuple[str, str], ...]


def read_trace(head: RequestHead) -> TraceParent | None:
    """The caller's trace context, None where there is none that is well-formed.

    A tracestate that is not is dropped, and the trace goes on without it (section 3.3.1.5).
    """
    match = TRACEPARENT.fullmatch(head.one(b"traceparent"))
    if match is None:
        return None
    state: list[tuple[str, str]] = []
    for member in b",".join(head.all(b"tracestate")).split(b","):
        text = member.strip(b" \t")
        if not text:
            continue
        if not _MEMBER.fullmatch(text):
            state.clear()
            break
        key, _, value = text.decode("ascii").partition("=")
        state.append((key, value))
    if len(state) > MAX_TRACESTATE_MEMBERS or len(dict(state)) < len(state):
        state.clear()
    return TraceParent(
        int(match["trace"], 16), int(match["parent"], 16), int(match["flags"], 16), tuple(state)
    )


class RequestSpan(Protocol):
    """The span of one request, and of its way to the upstream."""

    @property
    def sampled_trace_id(self) -> str:
        """The trace, in hexadecimal, if it is recorded; else empty."""

    def onward(self, target: bytes) -> bytes:
        """The request goes to `target`: the lines of the trace context that go with it."""

    def forwarded(self, upstream: str, status: int, grpc_status: int) -> None:
        """The upstream is done with it: with this status, or 0 where it failed. `grpc_status` is
        -1 where there is none."""

    def finish(
        self, request: Request, *, route: str, path: str, status: int, source: str,
        client_id: str, reason: str, grpc_status: int,
    ) -> None:  # fmt: skip
        """It is over. `path` is the route's, empty without one."""


class Tracing(Protocol):
    """Makes spans."""

    def begin(self, request: Request) -> RequestSpan:
        """The span of a request that has come."""
