"""A whole gateway in the test's event loop: real sockets, real store, real configuration."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.deadlines import until, within
from support.protocols import PROTOCOLS
from support.servers.h2_front import H2Front
from yarl import URL

from gateway.app.gateway import Gateway
from gateway.config import parse_config


def basic(client_id: str, client_secret: str) -> dict[str, str]:
    """The header of HTTP Basic credentials."""
    pair = f"{client_id}:{client_secret}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


REGISTRATION_TOKEN = "test-registration-token"
ADMIN_TOKEN = "test-admin-token"


def make_config(
    directory: Path,
    upstream_url: str = "http://127.0.0.1:9",
    *,
    upstream_protocol: str = PROTOCOLS[0],
    **sections: Any,
) -> str:
    """A configuration as text; `sections` are merged over the defaults of the tests."""
    config: dict[str, Any] = {
        "listen": {"host": "127.0.0.1", "port": 0},
        "admin": {"host": "127.0.0.1", "port": 0, "token": ADMIN_TOKEN},
        "store": f"sqlite:///{directory}/gateway.db",
        "access_log": {"path": str(directory / "access.log")},
        "provider": {
            "issuer": "http://gateway.test",
            "scopes": ["orders:read", "orders:write"],
            "default_scopes": ["orders:read"],
            "registration": {"mode": "token", "token": REGISTRATION_TOKEN},
        },
        "upstreams": {"main": {"targets": [upstream_url]}},
        "routes": [
            {"name": "public", "match": {"path": "/public"}, "upstream": "main", "auth": "none"},
            {"name": "maybe", "match": {"path": "/maybe"}, "upstream": "main", "auth": "optional"},
            {"name": "api", "match": {"path": "/api"}, "upstream": "main"},
            {
                "name": "write",
                "match": {"path": "/api/write"},
                "upstream": "main",
                "scopes": ["orders:write"],
            },
        ],
    }
    config = _merge(config, sections)
    if upstream_protocol == "h2":
        for one in config["upstreams"].values():
            one.setdefault("protocol", "http2")
    return yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False)


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: _merge(base.get(key), value) for key, value in over.items()}
    return over


@dataclass
class RunningGateway:
    """A started gateway and what a test does with it."""

    gateway: Gateway
    directory: Path
    session: aiohttp.ClientSession
    clients: list[RawClient] = field(default_factory=list)
    front: H2Front | None = None
    """What all requests pass that come by HTTP/2."""

    async def stop(self) -> None:
        """Close the raw connections, then the gateway."""
        await self.close_clients()
        if self.front is not None:
            await self.front.__aexit__(None, None, None)
        await self.gateway.stop()

    async def close_clients(self) -> None:
        """Close the raw connections."""
        while self.clients:
            await self.clients.pop().close()

    @property
    def port(self) -> int:
        """Of the data plane."""
        if self.front is not None:
            return self.front.port
        return self.gateway.data_address[1]

    def url(self, path: str) -> URL:
        """A URL of the data plane, its bytes left alone."""
        return URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)

    def admin_url(self, path: str) -> URL:
        """A URL of the admin listener."""
        return URL(f"http://127.0.0.1:{self.gateway.admin_address[1]}{path}", encoded=True)

    async def call_api(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of a response of the admin listener."""
        async with self.session.request(
            method,
            self.admin_url(path),
            json=body,
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"} | headers,
        ) as response:
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            return response.status, json.loads(await response.text())

    async def create_client(self, client_id: str, **parameters: str) -> dict[str, Any]:
        """Register a client whose secret is `secret`."""
        async with self.session.post(
            self.url("/createClient"),
            json={"client_id": client_id, "client_secret": "secret"} | parameters,
            headers={"Authorization": f"Bearer {REGISTRATION_TOKEN}"},
        ) as response:
            assert response.status == 201, await response.text()
            created: dict[str, Any] = await response.json()
            return created

    async def get_token(
        self, client_id: str, *, scope: str | None = None, secret: str = "secret"
    ) -> str:
        """An access token of a client, whose secret is `secret` where no other is given."""
        form = {"grant_type": "client_credentials"}
        if scope is not None:
            form["scope"] = scope
        async with self.session.post(
            self.url("/token"), data=form, headers=basic(client_id, secret)
        ) as response:
            assert response.status == 200, await response.text()
            token: str = (await response.json())["access_token"]
            return token

    async def token(self, client_id: str = "tester", *, scope: str | None = None) -> str:
        """An access token of a client made for it."""
        await self.create_client(client_id)
        return await self.get_token(client_id, scope=scope)

    async def connect(self) -> RawClient:
        """A raw connection to the data plane."""
        return await self.connect_to(("127.0.0.1", self.port))

    async def connect_to(self, address: tuple[str, int]) -> RawClient:
        """A raw connection to another listener of the gateway."""
        reader, writer = await asyncio.open_connection(*address)
        self.clients.append(RawClient(reader, writer))
        return self.clients[-1]

    async def send(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own; returns all that comes until it closes."""
        client = await self.connect()
        try:
            await client.send(request)
            return await client.read_to_end()
        finally:
            await client.close()

    async def metrics(self) -> str:
        """What Prometheus would read."""
        plain = {"Accept-Encoding": "identity"}  # the session decompresses nothing
        async with self.session.get(self.admin_url("/metrics"), headers=plain) as response:
            assert response.status == 200
            return await response.text()

    async def metric(self, sample: str, **labels: str) -> float:
        """The value of one sample; 0 where it is absent."""
        for family in text_string_to_metric_families(await self.metrics()):
            for found in family.samples:
                if found.name == sample and found.labels == labels:
                    return found.value
        return 0.0

    def access_log(self) -> list[dict[str, Any]]:
        """The lines of the access log so far."""
        text = (self.directory / "access.log").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    async def logged(self, count: int) -> list[dict[str, Any]]:
        """The access log, as soon as it has `count` lines."""
        await until(lambda: len(self.access_log()) >= count)
        return self.access_log()


@dataclass
class RawClient:
    """A client that sends exactly the bytes it is told."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def read_response(self, *, has_body: bool = True) -> Response:
        """One response, by its framing."""
        async with within():
            head = await self.reader.readuntil(b"\r\n\r\n")
            response = Response.parse(head)
            if not has_body:
                return response
            if response.header("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    response.body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            elif length := response.header("content-length"):
                response.body = await self.reader.readexactly(int(length))
            return response

    async def read_to_end(self) -> bytes:
        """Everything until the connection is closed."""
        async with within():
            return await self.reader.read()

    async def close(self) -> None:
        """Close the connection."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Response:
    """A response as it came over the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    @classmethod
    def parse(cls, head: bytes) -> Response:
        """A head, status line to empty line."""
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (li.partition(":") for li in lines)]
        return cls(int(line.split(" ")[1]), headers)

    def header(self, name: str) -> str | None:
        """The only value of a field."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else None


StartGateway = Callable[..., Awaitable[RunningGateway]]


async def start_gateway(
    directory: Path, text: str, session: aiohttp.ClientSession, protocol: str = PROTOCOLS[0]
) -> RunningGateway:
    """Start a gateway with a configuration given as text; its clients speak `protocol`."""
    gateway = Gateway(parse_config(text, file="test.yaml"))
    await gateway.start()
    running = RunningGateway(gateway, directory, session)
    if protocol == "h2":
        running.front = await H2Front(running.port).__aenter__()
    return running
