"""Envoy on both sides of the gateway: as the proxy in front of it, and as its upstream."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from support.clients.h2_client import H2Client
from support.deadlines import until
from support.processes.asking_proxy import ENVOY, find_program, until_listening
from support.running_gateway import StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream

from examples.ports import free_port

EXTENSIONS = "type.googleapis.com/envoy.extensions"


def listener(name: str, port: int, cluster: str) -> dict[str, Any]:
    hosts = {"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}]}  # fmt: skip
    router = f"{EXTENSIONS}.filters.http.router.v3.Router"
    manager = {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [hosts]},
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
    }
    return {
        "name": name,
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def cluster(name: str, port: int) -> dict[str, Any]:
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{kind}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "typed_extension_protocol_options": {kind: options},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
    }


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@asynccontextmanager
async def envoy(
    directory: Path, *, front: int, gateway: int, service: int, origin: int
) -> AsyncIterator[None]:
    """One Envoy: its port `front` leads to the gateway, `service` to the origin."""
    program = find_program(ENVOY)
    file = directory / "envoy.yaml"
    config = {
        "static_resources": {
            "listeners": [
                listener("front", front, "gateway"), listener("service", service, "origin"),
            ],
            "clusters": [cluster("gateway", gateway), cluster("origin", origin)],
        }
    }  # fmt: skip
    file.write_text(yaml.safe_dump(config))
    log = directory / "envoy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(ENVOY.command(program, file), stdout=output, stderr=output)
    try:
        await until_listening(front, process, log, timeout_s=30)
        await until_listening(service, process, log, timeout_s=30)
        yield
    finally:
        process.kill()
        process.wait()


def respond(request: H2Request) -> None:
    if b"/held" in request.one(b":path"):
        return
    request.head(headers=[(b"content-type", b"application/grpc")])
    for at in range(0, len(request.body), 10_000):
        request.send(request.body[at : at + 10_000])
    request.end([(b"grpc-status", b"0"), (b"x-size", b"%d" % len(request.body))])


async def test_calls_pass_envoy_on_both_sides(start: StartGateway, tmp_path: Path) -> None:
    find_program(ENVOY)
    front, service = free_port(), free_port()
    async with H2Upstream(on_end=respond) as origin:
        target = f"http://127.0.0.1:{service}"
        gateway = await start(
            "",
            upstreams={"main": {"targets": [target], "protocol": "http2"}},
            trusted_proxies=["127.0.0.1"],
        )
        ports = {"front": front, "gateway": gateway.port, "service": service}
        async with (
            envoy(tmp_path, origin=origin.port, **ports),
            await H2Client.connect(front) as client,
        ):
            fields = [("content-type", "application/grpc"), ("te", "trailers")]

            async def call(number: int) -> None:
                body = b"%d," % number * 1000
                how = {"method": "POST", "fields": fields}
                response = await client.request(f"/public/{number}", body, **how)
                assert (response.status, response.body) == (200, body)
                assert dict(response.trailers) == {"grpc-status": "0", "x-size": str(len(body))}

            await asyncio.gather(*(call(number) for number in range(50)))
            # Without a token, gRPC gets its status; by Envoy, as by others.
            refused = await client.request("/api/x", method="POST", fields=fields)
            assert (refused.status, dict(refused.headers)["grpc-status"]) == (200, "16")
            # A reset passes all of them.
            stream = client.begin("/public/held", method="POST", ends=False)
            client.send(stream, b"x")
            await until(lambda: len(origin.requests) == 51)
            client.reset(stream)
            await until(lambda: any(one.reset_code is not None for one in origin.requests))
        lines = await gateway.logged(52)
        assert {line["protocol"] for line in lines} == {"HTTP/2.0"}
        assert await gateway.metric("gateway_http2_errors_total", reason="protocol") == 0
