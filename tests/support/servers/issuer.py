"""Another issuer, on a real socket: its key set and its introspection endpoint."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from joserfc.jwk import Key
from support.jose_values import jwks


@asynccontextmanager
async def served(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Its URL, as long as the block lasts."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class Issuer:
    """What it publishes and says, and what it was asked."""

    keys: list[Key] = field(default_factory=list)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    status: int = 200
    raw: bytes | None = None
    token: str | None = None
    """The bearer token that it asks for, as a Kubernetes API server does."""
    metadata_path: str = "/.well-known/openid-configuration"
    metadata: dict[str, Any] = field(default_factory=dict)
    """What its metadata has in place of what is right."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def jwks_uri(self) -> str:
        """Where its keys are."""
        return f"{self.url}/jwks"

    @property
    def endpoint(self) -> str:
        """Where it answers questions about tokens."""
        return f"{self.url}/introspect"

    async def serve_keys(self, request: web.Request) -> web.Response:
        """The key set."""
        self.requests.append(request.path)
        await self.gate.wait()
        if not self.may_read(request):
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        if self.raw is not None:
            return web.Response(body=self.raw, status=self.status)
        return web.json_response(jwks(*self.keys), status=self.status)

    def may_read(self, request: web.Request) -> bool:
        """Whether a request has the token."""
        self.authorizations.append(request.headers.get("Authorization", ""))
        return self.token is None or self.authorizations[-1] == f"Bearer {self.token}"

    async def serve_metadata(self, request: web.Request) -> web.Response:
        """Its metadata, at one of the paths where it may be."""
        self.requests.append(request.path)
        if request.path != self.metadata_path:
            raise web.HTTPNotFound
        if not self.may_read(request):
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        return web.json_response({"issuer": self.url, "jwks_uri": self.jwks_uri} | self.metadata)

    async def serve_introspection(self, request: web.Request) -> web.Response:
        """What a token is (RFC 7662)."""
        form = await request.post()
        self.requests.append(str(form["token"]))
        self.authorizations.append(request.headers["Authorization"])
        await self.gate.wait()
        response = self.tokens.get(str(form["token"]), {"active": False})
        return web.json_response(response, status=self.status)


@asynccontextmanager
async def issuer(*keys: Key, tls: ssl.SSLContext | None = None) -> AsyncIterator[Issuer]:
    """A running issuer."""
    running = Issuer(list(keys))
    app = web.Application()
    app.router.add_get("/jwks", running.serve_keys)
    app.router.add_post("/introspect", running.serve_introspection)
    app.router.add_get("/{rest:.*well-known/.*}", running.serve_metadata)
    async with served(app, tls) as running.url:
        yield running
