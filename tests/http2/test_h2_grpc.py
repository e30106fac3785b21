"""gRPC through the gateway: client and server are grpcio, HTTP/2 on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.deadlines import scaled, until
from support.running_gateway import RunningGateway, StartGateway

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

Behavior = Callable[..., Any]


async def unary(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("x-trailer", "t"), ("x-bin", b"\0\xff")))
    metadata = dict(context.invocation_metadata())
    await context.send_initial_metadata((("x-initial", metadata.get("x-client-id", "")),))
    return request[::-1]


async def client_stream(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b",".join([request async for request in requests])


async def server_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


async def bidi(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.upper()


async def fail(request: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "näh, 100 %")
    return b""


async def early(requests: AsyncIterator[bytes], context: Any) -> bytes:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "enough")
    return b""


class Held:
    """A call that waits until its client gives up."""

    def __init__(self) -> None:
        self.left_s = 0.0
        self.is_cancelled = False
        self.has_begun = asyncio.Event()

    async def call(self, request: bytes, context: Any) -> bytes:
        self.left_s = context.time_remaining() or 0.0
        self.has_begun.set()
        try:
            await asyncio.sleep(scaled(600))
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        return b""


async def health(request: bytes, context: Any) -> bytes:
    """SERVING for `t.Echo`, NOT_SERVING for others."""
    return b"\x08\x01" if request == b"\x0a\x06t.Echo" else b"\x08\x02"


@asynccontextmanager
async def serving(held: Held | None = None, **options: int) -> AsyncIterator[str]:
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Early": grpc.stream_unary_rpc_method_handler(early),
        "Admin": grpc.unary_unary_rpc_method_handler(unary),
        "Held": grpc.unary_unary_rpc_method_handler((held or Held()).call),
    }
    check = {"Check": grpc.unary_unary_rpc_method_handler(health)}
    server = grpc.aio.server(options=[(f"grpc.{name}", value) for name, value in options.items()])
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("t.Echo", handlers),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", check),
    ))  # fmt: skip
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def sections(url: str, **settings: Any) -> dict[str, Any]:
    return {
        "upstreams": {"main": {"targets": [url], "protocol": "http2", **settings}},
        "routes": [
            {"name": "echo", "match": {"path": "/t.Echo"}, "upstream": "main"},
            {
                "name": "admin",
                "match": {"path": "/t.Echo/Admin"},
                "upstream": "main",
                "scopes": ["orders:write"],
            },
        ],
    }


@asynccontextmanager
async def calling(
    start: StartGateway, held: Held | None = None, **settings: Any
) -> AsyncIterator[tuple[RunningGateway, Any, tuple[tuple[str, str], ...]]]:
    """A gateway before a server, a channel to it, and the metadata of a token."""
    async with serving(held) as url:
        gateway = await start("", **sections(url, **settings))
        token = await gateway.token()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            yield gateway, channel, (("authorization", f"Bearer {token}"),)


async def test_unary_call_with_metadata_and_trailers(start: StartGateway) -> None:
    async with calling(start) as (gateway, channel, metadata):
        call = channel.unary_unary("/t.Echo/Unary")(b"abc", metadata=metadata)
        assert await call == b"cba"
        assert dict(await call.initial_metadata())["x-initial"] == "tester"
        trailing = dict(await call.trailing_metadata())
        assert (trailing["x-trailer"], trailing["x-bin"]) == ("t", b"\0\xff")
        [line] = (await gateway.logged(3))[-1:]
        assert (line["status"], line["grpc_status"], line["route"]) == (200, 0, "echo")
        labels = {"route": "echo", "grpc_status": "0"}
        assert await gateway.metric("gateway_grpc_calls_total", **labels) == 1


async def test_large_messages_pass_both_ways(start: StartGateway) -> None:
    async with calling(start) as (_, channel, metadata):
        body = bytes(range(256)) * 12_000  # 3 MB
        assert await channel.unary_unary("/t.Echo/Unary")(body, metadata=metadata) == body[::-1]


async def test_streams_of_client_and_server(start: StartGateway) -> None:
    async with calling(start) as (_, channel, metadata):

        async def pieces() -> AsyncIterator[bytes]:
            for number in range(50):
                yield b"%d" % number

        everything = b",".join([b"%d" % number for number in range(50)])
        call = channel.stream_unary("/t.Echo/ClientStream")(pieces(), metadata=metadata)
        assert await call == everything
        stream = channel.unary_stream("/t.Echo/ServerStream")(b"50", metadata=metadata)
        assert b",".join([piece async for piece in stream]) == everything


async def test_both_ways_at_once_and_half_close(start: StartGateway) -> None:
    async with calling(start) as (_, channel, metadata):
        call = channel.stream_stream("/t.Echo/Bidi")(metadata=metadata)
        for word in (b"one", b"two", b"three"):
            await call.write(word)
            assert await call.read() == word.upper()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_error_of_the_server_passes(start: StartGateway) -> None:
    async with calling(start) as (gateway, channel, metadata):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/t.Echo/Fail")(b"", metadata=metadata)
        assert failure.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert failure.value.details() == "näh, 100 %"
        assert (await gateway.logged(3))[-1]["grpc_status"] == 9


async def test_response_before_the_end_of_the_request(start: StartGateway) -> None:
    async with calling(start) as (_, channel, metadata):
        call = channel.stream_unary("/t.Echo/Early")(metadata=metadata)
        await call.write(b"first")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call
        assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert await channel.unary_unary("/t.Echo/Unary")(b"ab", metadata=metadata) == b"ba"


@pytest.mark.parametrize(
    ("path", "with_token", "code"),
    [
        ("/t.Echo/Unary", False, "UNAUTHENTICATED"),
        ("/t.Echo/Admin", True, "PERMISSION_DENIED"),
        ("/t.Other/Call", True, "UNIMPLEMENTED"),
    ],
)
async def test_refusals_are_read_by_the_client(
    start: StartGateway, path: str, with_token: bool, code: str
) -> None:
    async with calling(start) as (_, channel, metadata):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary(path)(b"", metadata=metadata if with_token else None)
        assert failure.value.code() == grpc.StatusCode[code]
        assert failure.value.details()
        # Metadata of a Trailers-Only response is the trailing one.
        found = dict(failure.value.trailing_metadata()) | dict(failure.value.initial_metadata())
        assert ("www-authenticate" in found) is (code != "UNIMPLEMENTED")


async def test_server_that_is_gone_is_unavailable(start: StartGateway) -> None:
    async with serving() as url:
        pass
    gateway = await start("", **sections(url))
    metadata = (("authorization", f"Bearer {await gateway.token()}"),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/t.Echo/Unary")(b"", metadata=metadata)
        assert failure.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_deadline_is_passed_on_reduced_and_cancels_the_server(start: StartGateway) -> None:
    held = Held()
    async with calling(start, held) as (_, channel, metadata):
        timeout_s = scaled(2)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/t.Echo/Held")(b"", metadata=metadata, timeout=timeout_s)
        assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0 < held.left_s < timeout_s * 1.1  # grpcio rounds up
        await until(lambda: held.is_cancelled)


async def test_client_that_cancels_cancels_the_server(start: StartGateway) -> None:
    held = Held()
    async with calling(start, held) as (gateway, channel, metadata):
        call = channel.unary_unary("/t.Echo/Held")(b"", metadata=metadata)
        sending = asyncio.ensure_future(call)
        async with asyncio.timeout(scaled()):
            await held.has_begun.wait()
        call.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await until(lambda: held.is_cancelled)
        assert (await gateway.logged(3))[-1]["status"] == 499


async def test_server_whose_connections_age_loses_no_call(start: StartGateway) -> None:
    """GOAWAY after GOAWAY: what was not processed goes to another connection, not to the client."""
    async with serving(max_connection_age_ms=200, max_connection_age_grace_ms=60_000) as url:
        gateway = await start("", **sections(url))
        metadata = (("authorization", f"Bearer {await gateway.token()}"),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            unary = channel.unary_unary("/t.Echo/Unary")
            chat = channel.stream_stream("/t.Echo/Bidi")(metadata=metadata)
            for number in range(60):
                body = b"%d" % number
                calls = (unary(body, metadata=metadata) for _ in range(5))
                assert await asyncio.gather(*calls) == [body[::-1]] * 5
                await chat.write(body)
                assert await chat.read() == body
                await asyncio.sleep(0.01)  # so that there are connections to age
            await chat.done_writing()
            assert await chat.read() is grpc.aio.EOF


@pytest.mark.parametrize(("service", "unhealthy"), [("t.Echo", 0), ("t.Other", 1)])
async def test_health_service_of_a_server_is_asked(
    start: StartGateway, service: str, unhealthy: int
) -> None:
    async with serving() as url:
        check = {"grpc": {"service": service}, "interval": "20ms", "unhealthy_threshold": 1}
        gateway = await start("", **sections(url, health_check=check))
        result = "failed" if unhealthy else "ok"
        labels = {"upstream": "main", "result": result}

        async def is_checked() -> bool:
            return await gateway.metric("gateway_upstream_health_checks_total", **labels) > 2

        await until(is_checked)
        assert await gateway.metric("gateway_upstream_unhealthy", upstream="main") == unhealthy
