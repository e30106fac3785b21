"""A gRPC service behind a sidecar: probes of the kubelet, which pass the gateway, and a stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.cluster_secrets import documented_secrets
from support.deadlines import duration, scaled, until
from support.deploy_tools import kustomize
from support.processes.container import ContainerProcess, Settings
from support.tiers import slow

from examples.ports import free_port

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

pytestmark = [slow("pods"), pytest.mark.system]

REGISTRATION_TOKEN = documented_secrets()["gateway"]["registration-token"]
CHECK = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
"""HealthCheckResponse (grpc.health.v1)."""


class Service:
    """The application: a health service, and a stream that goes on while it is asked to."""

    def __init__(self) -> None:
        self.health = SERVING
        self.checks: list[str] = []
        """User agents."""
        self._server: Any = None

    async def start(self, port: int) -> None:
        """Listen on localhost, as an application behind a sidecar does."""
        handlers = {"Echo": grpc.stream_stream_rpc_method_handler(self._echo)}
        check = {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler("shop.Orders", handlers),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", check),
        ))  # fmt: skip
        self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()

    async def stop(self) -> None:
        """End calls, and close the port."""
        if self._server is not None:
            await self._server.stop(None)

    async def _check(self, request: bytes, context: Any) -> bytes:
        self.checks.append(dict(context.invocation_metadata())["user-agent"])
        return self.health

    async def _echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


async def probe(gateway: ContainerProcess) -> bytes | str:
    """Probe as the kubelet does, on a connection of its own without TLS or token: the response, or
    the status of a failure."""
    options = [("grpc.primary_user_agent", "kube-probe/1.37")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=options) as channel:
        try:
            response: bytes = await channel.unary_unary(CHECK)(b"", timeout=scaled())
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return response


def readiness(gateway: ContainerProcess) -> int:
    """What the sidecar's own probe sees."""
    return httpx.get(f"{gateway.admin_url}/readyz").status_code


@asynccontextmanager
async def sidecar(directory: Path, port: int, **shutdown: str) -> AsyncIterator[ContainerProcess]:
    """A sidecar, changed as docs/guides/kubernetes.md says, before a service on `port`."""

    def change(settings: Settings) -> None:
        settings["shutdown"] |= shutdown
        settings["upstreams"]["app"] = {
            "targets": [f"http://127.0.0.1:{port}"], "protocol": "http2",
            "health_check": {"grpc": {}, "interval": duration(0.1)},
        }  # fmt: skip
        route = {"path": CHECK, "exact": True}
        settings["routes"][0] = {
            "name": "health",
            "match": route,
            "upstream": "app",
            "auth": "none",
        }

    gateway = ContainerProcess(directory, kustomize("k8s/overlays/sidecar"), change=change)
    await asyncio.to_thread(gateway.start)
    try:
        yield gateway
    finally:
        assert await asyncio.to_thread(gateway.stop) == 0
    assert "Traceback" not in gateway.errors()


async def test_probe_of_grpc_passes_the_sidecar_and_sees_the_service(tmp_path: Path) -> None:
    service, port = Service(), free_port()
    async with sidecar(tmp_path, port) as gateway:

        async def sees(expected: bytes | str) -> bool:
            return await probe(gateway) == expected

        # Ready before the service is up: the kubelet waits for the sidecar first.
        assert readiness(gateway) == 200
        assert await probe(gateway) == "UNAVAILABLE"
        await service.start(port)
        try:
            await until(lambda: sees(SERVING))
            assert any(agent.startswith("kube-probe/1.37 ") for agent in service.checks)
            # Other methods need a token.
            async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                    await channel.stream_stream("/shop.Orders/Echo")(iter([b"x"])).read()

            # The pod leaves its Services by the service's own probe, and the sidecar stays ready.
            service.health = NOT_SERVING
            await until(
                lambda: 'gateway_upstream_unhealthy{upstream="app"} 1.0' in metrics(gateway)
            )
            assert await probe(gateway) == NOT_SERVING
            assert readiness(gateway) == 200
            service.health = SERVING
            await until(lambda: sees(SERVING))
        finally:
            await service.stop()


def metrics(gateway: ContainerProcess) -> str:
    """What Prometheus reads."""
    return httpx.get(f"{gateway.admin_url}/metrics").text


async def test_sidecar_that_stops_is_not_ready_first_and_finishes_streams(tmp_path: Path) -> None:
    service, port = Service(), free_port()
    await service.start(port)
    try:
        async with sidecar(tmp_path, port, delay="1s") as gateway:
            await asyncio.to_thread(gateway.create_client, registration_token=REGISTRATION_TOKEN)
            token = await asyncio.to_thread(gateway.get_token)
            metadata = (("authorization", f"Bearer {token}"),)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
                stream = channel.stream_stream("/shop.Orders/Echo")(metadata=metadata)
                await stream.write(b"before")
                assert await stream.read() == b"before"
                gateway.process.send_signal(signal.SIGTERM)
                await until(lambda: readiness(gateway) == 503)
                # For `shutdown.delay`, new calls are served, also on new connections.
                assert await probe(gateway) == SERVING
                await until(lambda: is_closed(gateway))
                # The connection was asked to end (GOAWAY), and the stream goes on.
                await stream.write(b"after")
                assert await stream.read() == b"after"
                assert gateway.process.poll() is None
                await stream.done_writing()
                assert await stream.read() is grpc.aio.EOF
                assert await stream.code() == grpc.StatusCode.OK
            assert await asyncio.to_thread(gateway.process.wait, scaled()) == 0
    finally:
        await service.stop()


def is_closed(gateway: ContainerProcess) -> bool:
    """Whether no new connection is accepted."""
    try:
        httpx.get(f"{gateway.url}/")
    except httpx.ConnectError:
        return True
    return False
