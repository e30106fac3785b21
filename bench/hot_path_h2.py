"""The hot path over HTTP/2 without sockets: unary calls of gRPC, HTTP/2 on both sides.

As `bench/hot_path.py`, it drives the real data plane with transports that only keep what is
written. What client and upstream send is made before, so that nothing but the gateway is measured:
calls come in reads of several, on streams of one connection, as they do from a busy client.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bench.h2_load import Field, encode_block
from bench.hot_path import TOKENS, FakeTransport, HotPath

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, SETTINGS_ACK = b"\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\x01\0\0\0\0"
OPEN_WINDOW = b"\0\0\x04\x08\0\0\0\0\0" + (2**31 - 1 - 65_535).to_bytes(4, "big")
MESSAGE = b"\0\0\0\0\x1e" + b"m" * 30
REPLY = b"\0\0\0\0\x14" + b"r" * 20
END_STREAM, END_HEADERS = 1, 4
PER_READ = 10
"""Calls that come with one read of the client's socket, and responses with the upstream's."""
TURNS_PER_READ = 4
"""Of the event loop: a few calls begin in each, and what goes upstream is sent at the end
of it."""
CALLS = 1200
CONSTANT: list[Field] = [
    (":method", "POST"), (":scheme", "http"), (":authority", "bench.example"),
    (":path", "/bench.Echo/Call"), ("user-agent", "bench/1.0"),
    ("content-type", "application/grpc"), ("te", "trailers"),
    ("grpc-accept-encoding", "identity, deflate, gzip"),
]  # fmt: skip
RESPONSE: list[Field] = [
    (":status", "200"), ("server", "nghttpd nghttp2/1.52.0"), ("cache-control", "max-age=3600"),
    ("date", "Tue, 24 Nov 2026 12:00:00 GMT"), ("content-type", "application/grpc"),
]  # fmt: skip


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """A frame (RFC 9113 section 4.1)."""
    return b"%b%c%c%b%b" % (
        len(payload).to_bytes(3, "big"), kind, flags, stream_id.to_bytes(4, "big"), payload,
    )  # fmt: skip


def request(number: int) -> bytes:
    """One call, whose head is not like any other."""
    varied = [
        ("authorization", f"Bearer {TOKENS[number % 50]}"),
        ("traceparent", f"00-4bf92f3577b34da6{number:016x}-{number * 31 + 1:016x}-01"),
        ("x-request-id", f"bench-{number}"),
    ]
    stream_id = 2 * number + 1
    block = encode_block(CONSTANT, varied, is_first=not number)
    return frame(1, END_HEADERS, stream_id, block) + frame(0, END_STREAM, stream_id, MESSAGE)


def response(number: int) -> bytes:
    """Its response, as most servers send it: the same head each time, a message, trailers."""
    stream_id = 2 * number + 1
    trailers = encode_block([], [("grpc-status", "0")])
    return (
        frame(1, END_HEADERS, stream_id, encode_block(RESPONSE, [], is_first=not number))
        + frame(0, 0, stream_id, REPLY)
        + frame(1, END_HEADERS | END_STREAM, stream_id, trailers)
    )


class GrpcPath(HotPath):
    """One client connection, one upstream connection, and calls between them."""

    path = "/bench.Echo"
    protocol = "http2"

    def _connect(self) -> None:
        pool: Any = self._pool
        self._wire = pool._make_wire()  # what a dial would make
        self._wire.connection_made(FakeTransport())
        pool._shared.append(self._wire.http2)

    async def run_calls(self, count: int) -> None:
        """Send `count` calls, of at most `CALLS`."""
        # All of them, so that making them costs the same whatever the count.
        requests = [request(number) for number in range(CALLS)]
        responses = [response(number) for number in range(CALLS)]
        self._client.data_received(PREFACE + SETTINGS + OPEN_WINDOW + SETTINGS_ACK)
        client, upstream = self._client_transport.protocol, self._wire
        upstream.data_received(SETTINGS + OPEN_WINDOW + SETTINGS_ACK)
        before = self._finished["POST", 200, "upstream"]
        for at in range(0, count, PER_READ):
            client.data_received(b"".join(requests[at : at + PER_READ]))
            for _ in range(TURNS_PER_READ):
                await asyncio.sleep(0)
            upstream.data_received(b"".join(responses[at : at + PER_READ]))
            await asyncio.sleep(0)
        if self._finished["POST", 200, "upstream"] - before != count:
            raise RuntimeError(f"not every call was served: {dict(self._finished)}")
