"""An MCP server, by the official SDK, and a gateway with config/mcp.yaml in front of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from support.clients.person import PASSWORD
from support.deadlines import scaled, wait_until
from support.processes.gateway import GatewayProcess, gateway_process

from examples.ports import free_port

ROOT = Path(__file__).parents[3]


@contextmanager
def mcp_server() -> Iterator[int]:
    """examples/mcp_server.py, as a process; gives its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.mcp_server"],
        cwd=ROOT, env=os.environ | {"UPSTREAM_PORT": str(port)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def is_listening() -> bool:
        assert process.poll() is None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(is_listening)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=scaled())


@contextmanager
def mcp_gateway(
    directory: Path, server_port: int, *, origin: str = "", **provider: Any
) -> Iterator[GatewayProcess]:
    """A gateway with the routes and the provider of config/mcp.yaml, but for keys of `provider`,
    and with the user `alice`. Pages of `origin` may call."""
    config = yaml.safe_load((ROOT / "config" / "mcp.yaml").read_text())
    config["provider"].pop("issuer")
    rules = config["provider"] | {"seal_key_file": str(directory / "gateway.key")} | provider
    routes = [route | {"upstream": "main"} for route in config["routes"]]
    if origin:
        routes[0]["mcp"]["origins"] = [origin]
    url = f"http://127.0.0.1:{server_port}"
    with gateway_process(
        directory, url, is_own_issuer=True, provider=rules, routes=routes
    ) as running:
        subprocess.run(
            [sys.executable, "-m", "gateway", "user", "create", "alice", "--password-file", "-",
             "-c", str(running.config)],
            input=PASSWORD, text=True, check=True, capture_output=True, timeout=scaled(60),
        )  # fmt: skip
        yield running
