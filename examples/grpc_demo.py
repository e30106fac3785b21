"""A small gRPC server, and a client for it, to try a gateway between them.

`python -m examples.grpc_demo serve` listens on 127.0.0.1:50051, or on $GRPC_PORT;
`python -m examples.grpc_demo call --token TOKEN` calls it through 127.0.0.1:8080, or `--target`,
and prints what a call has: messages, trailers, status. Messages are JSON, so that nothing has to be
generated. Needs grpcio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

HOST = "127.0.0.1"
PORT = 50051
SERVICE = "demo.Orders"
SERVING = b"\x08\x01"
"""A HealthCheckResponse (grpc.health.v1)."""


def encode(message: object) -> bytes:
    """Write a message."""
    return json.dumps(message).encode()


async def get(request: Any, context: Any) -> object:
    """Respond to one message with one."""
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-served-by", "examples.grpc_demo"),))
    return {"order": request["order"], "state": "shipped", "for": metadata.get("x-client-id", "")}


async def create(request: Any, context: Any) -> object:
    """Respond to one message with one; the gateway asks for another scope."""
    return {"created": request["order"]}


async def watch(request: Any, context: Any) -> AsyncIterator[object]:
    """Respond with a stream."""
    for state in ("paid", "packed", "shipped"):
        yield {"order": request["order"], "state": state}


async def check_health(request: bytes, context: Any) -> bytes:
    """Respond as grpc.health.v1.Health does."""
    return SERVING


async def serve() -> None:
    """Serve until SIGTERM or SIGINT."""
    messages: dict[str, Any] = {
        "request_deserializer": json.loads, "response_serializer": encode,
    }  # fmt: skip
    orders = {
        "Get": grpc.unary_unary_rpc_method_handler(get, **messages),
        "Create": grpc.unary_unary_rpc_method_handler(create, **messages),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, **messages),
    }
    health = {"Check": grpc.unary_unary_rpc_method_handler(check_health)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(SERVICE, orders),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
        )
    )
    port = server.add_insecure_port(f"{HOST}:{os.environ.get('GRPC_PORT') or PORT}")
    await server.start()
    print(f"{SERVICE} listens on {HOST}:{port}", flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await server.stop(grace=1)


async def call(target: str, method: str, message: object, token: str, timeout_s: float) -> int:
    """Call a method and print what comes; returns the status of gRPC."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with grpc.aio.insecure_channel(target) as channel:
        start = channel.unary_stream(
            f"/{SERVICE}/{method}", request_serializer=encode, response_deserializer=json.loads
        )
        started = start(message, metadata=metadata, timeout=timeout_s)
        try:
            async for response in started:
                print(json.dumps(response, indent=2))
        except grpc.aio.AioRpcError as error:
            print(f"ERROR:\n  Code: {error.code().name}\n  Message: {error.details()}")
        for name, value in await started.trailing_metadata() or ():
            print(f"{name}: {value}")
        code = await started.code()
        print(f"Status: {code.name}")
        return int(code.value[0])


def main() -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.grpc_demo")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve demo.Orders")
    calling = commands.add_parser("call", help="call it")
    calling.add_argument("--target", default=f"{HOST}:8080")
    calling.add_argument("--method", default="Get", choices=["Get", "Create", "Watch"])
    calling.add_argument("--order", default="42")
    calling.add_argument("--token", default="")
    calling.add_argument("--timeout", type=float, default=5.0, help="seconds")
    options = parser.parse_args()
    if options.command == "serve":
        asyncio.run(serve())
        return 0
    message = {"order": options.order}
    return asyncio.run(
        call(options.target, options.method, message, options.token, options.timeout)
    )


if __name__ == "__main__":
    sys.exit(main())
