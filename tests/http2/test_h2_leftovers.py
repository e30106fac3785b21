"""What a call has made is gone after it, however it ended."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import pytest
from http2.test_h2_grpc import calling
from support.deadlines import until
from support.running_gateway import RunningGateway, StartGateway

from gateway.downstream.h2 import H2Connection
from gateway.downstream.h2_stream import H2Stream
from gateway.downstream.request import Request
from gateway.http.deadline import Deadline
from gateway.http.h2_engine import H2Engine
from gateway.proxy.exchange import Exchange
from gateway.upstream.h2 import MultiplexedConnection
from gateway.upstream.h2_stream import MultiplexedStream

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

KINDS = (H2Connection, H2Engine, H2Stream, Request, Deadline, Exchange, MultiplexedConnection,
         MultiplexedStream)  # fmt: skip


def alive() -> Counter[str]:
    """How many there are of what calls are made of, and what connections keep of calls."""
    gc.collect()
    counts: Counter[str] = Counter()
    for one in gc.get_objects():
        if isinstance(one, KINDS):
            counts[type(one).__name__] += 1
        if isinstance(one, H2Connection | MultiplexedConnection):
            kept = (getattr(one, name, ()) for name in ("_streams", "_settled", "_waiting"))
            counts["kept"] += sum(len(of) for of in kept)
    return counts


async def make_calls(channel: Any, metadata: Any) -> None:
    """Calls that end in each way."""
    unary, bidi = channel.unary_unary("/t.Echo/Unary"), channel.stream_stream("/t.Echo/Bidi")
    for _ in range(30):
        await unary(b"abc", metadata=metadata)
        chat = bidi(metadata=metadata)
        await chat.write(b"a")
        assert await chat.read() == b"A"
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
        left = bidi(metadata=metadata)
        await left.write(b"a")
        await left.read()
        left.cancel()
        for call in (
            unary(b"abc"),
            channel.unary_unary("/t.Echo/Fail")(b"", metadata=metadata),
            channel.stream_unary("/t.Echo/Early")(iter([b"a"] * 3), metadata=metadata),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await call


def is_at_rest(gateway: RunningGateway) -> bool:
    return gateway.gateway.metrics.data_plane.inflight_requests == 0


async def test_calls_leave_no_objects(start: StartGateway) -> None:
    async with calling(start) as (gateway, channel, metadata):
        await make_calls(channel, metadata)
        await until(lambda: is_at_rest(gateway))
        before = alive()
        assert before["H2Connection"] == before["MultiplexedConnection"] == 1
        await make_calls(channel, metadata)
        await until(lambda: is_at_rest(gateway))
        after = alive()
        assert not after - before, after - before
