"""The gRPC server of a run, made of grpcio: responds with proof of what it was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc

from soak.origin import expected_body

SERVICE = "soak.Proof"
NUMBER = "soak-number"
"""In the metadata of each call."""
FAILURE = "soak: n\u00f6 such order"
"""The message of a status of the server's own."""


def _number_of(context: Any) -> str:
    return str(dict(context.invocation_metadata())[NUMBER])


class GrpcOrigin:
    """A server on a port of loopback."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        """How often each call came that must not come twice, by its number."""
        self.port = 0
        self._server: Any = None

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
            "Collect": grpc.stream_unary_rpc_method_handler(self._collect),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
        }
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Go away, with every call."""
        if self._server is not None:
            await self._server.stop(grace=0)
            self._server = None

    async def _unary(self, request: bytes, context: Any) -> bytes:
        self.seen[number := _number_of(context)] += 1
        return expected_body(number, request)

    async def _watch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for step in range(int(request)):
            yield expected_body(f"{_number_of(context)}.{step}", b"")

    async def _collect(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self.seen[number := _number_of(context)] += 1
        return expected_body(number, b"".join([one async for one in requests]))

    async def _chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for one in requests:
            yield expected_body(_number_of(context), one)

    async def _fail(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, FAILURE)
        return b""
