"""A web server with the metadata documents of clients, by https on a real socket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from support.jose_values import make_certificate

CA = "ca"


@dataclass
class DocumentServer:
    """What is at which path, and who came for it."""

    documents: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    requests: list[str] = field(default_factory=list)
    port: int = 0
    ca: Path = Path()

    def url(self, path: str) -> str:
        """A client id."""
        return f"https://localhost:{self.port}{path}"

    def publish(self, path: str, **members: Any) -> str:
        """Have a document there; what is None is left out. Returns the client id."""
        client_id = self.url(path)
        document = {
            "client_id": client_id,
            "client_name": "Desktop Agent",
            "redirect_uris": ["http://127.0.0.1/callback"],
        } | members
        self.documents[path] = {name: one for name, one in document.items() if one is not None}
        return client_id

    async def respond(self, request: web.Request) -> web.Response:
        """The document."""
        self.requests.append(request.path)
        document = self.documents.get(request.path)
        if isinstance(document, str):
            return web.Response(
                text=document, status=self.status, content_type="application/json",
                headers=self.headers,
            )  # fmt: skip
        if document is None:
            return web.Response(status=404)
        return web.json_response(document, status=self.status, headers=self.headers)


@asynccontextmanager
async def document_server(directory: Path) -> AsyncIterator[DocumentServer]:
    """A server on `localhost`, whose certificate `ca` has issued."""
    ca = make_certificate(directory, CA, is_ca=True)
    own = make_certificate(directory, "documents", issuer=ca)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(own.cert, own.key)
    server = DocumentServer(ca=ca.cert)
    app = web.Application()
    app.router.add_get("/{path:.*}", server.respond)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    assert site._server is not None
    server.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    yield server
    await runner.cleanup()
