"""Limits of HTTP/2 connections to upstreams: what is announced to them, and a budget for what costs
them nothing (RFC 9113 section 10.5)."""

from __future__ import annotations

import asyncio

from gateway.http.h2 import ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE, H2Events
from gateway.http.h2_budget import IGNORED_BYTES, IGNORED_REFILL_S, Budget, IgnoredBytes
from gateway.http.h2_engine import H2Engine

MAX_STREAMS = 100
"""Of one connection, where the peer allows as many; also before it has said so."""
STREAM_WINDOW = 256 * 1024
"""What an upstream may send on a stream ahead of its client."""
CONNECTION_WINDOW = STREAM_WINDOW * MAX_STREAMS
"""One stream that stalls holds up no other."""
MAX_QUEUED_BYTES = 64 * 1024
"""What is kept of a request's body that the upstream does not take; then its client waits."""
MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 256
PADDED_FRAME_BYTES = 9 + 1 + 255
"""What a frame may take besides data: some servers pad each of them (section 6.1)."""


def make_engine(events: H2Events) -> H2Engine:
    """Make the engine of a connection."""
    return H2Engine(
        events,
        is_server=False,
        settings={
            ENABLE_PUSH: 0,
            INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
        },
        connection_window=CONNECTION_WINDOW,
        max_fields=MAX_FIELDS,
        max_head_bytes=MAX_HEAD_BYTES,
    )


def make_ignored(loop: asyncio.AbstractEventLoop) -> IgnoredBytes:
    """Make the budget for what the engine passes over: of each request, head and trailers, and a
    window of its body, which may be under way when its stream is reset."""
    now = loop.time()
    return IgnoredBytes(
        Budget(IGNORED_BYTES, IGNORED_REFILL_S, now, most=CONNECTION_WINDOW),
        loop,
        per_request=STREAM_WINDOW + 2 * MAX_HEAD_BYTES,
        per_event=PADDED_FRAME_BYTES,
    )
