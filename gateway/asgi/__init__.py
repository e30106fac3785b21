"""The bearer check in an ASGI application: Starlette, FastAPI and others.

    gateway = EmbeddedGateway("gateway.yaml")
    app = Starlette(
        routes=[Route("/orders", orders, middleware=[Middleware(BearerMiddleware, gateway)])],
        lifespan=lifespan(gateway),
    )

FastAPI's dependency is in `gateway.asgi.fastapi`. Nothing here decides anything about tokens:
requests are handed to `EmbeddedGateway`, and what comes back is sent. `docs/asgi.md` describes each
name.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, Unpack
from urllib.parse import quote

from gateway.app.embedded import (
    BearerRules,
    EmbeddedGateway,
    Identity,
    RejectedError,
    Requirements,
)
from gateway.downstream.request import Request
from gateway.proxy.direct_response import DirectResponse

__all__ = [
    "BearerMiddleware",
    "EmbeddedGateway",
    "Identity",
    "find_identity",
    "identity",
    "lifespan",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
IDENTITY = "gateway.identity"
"""Key of a connection's scope."""
_SCHEMES = {"ws": "http", "wss": "https"}


class HasScope(Protocol):
    """A connection as Starlette and FastAPI have it: `Request`, `WebSocket`."""

    @property
    def scope(self) -> MutableMapping[str, Any]:
        """Its ASGI scope."""


def lifespan(gateway: EmbeddedGateway) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return the `lifespan` of a Starlette or FastAPI application that starts `gateway` with it,
    and stops it with it."""

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[None]:
        async with gateway:
            yield

    return run


class BearerMiddleware:
    """Lets only requests and WebSocket handshakes pass whose token is valid and meets the
    requirements: around an application, a mount, or a route."""

    def __init__(
        self, app: ASGIApp, gateway: EmbeddedGateway, **requirements: Unpack[Requirements]
    ) -> None:
        self._app = app
        self._gateway = gateway
        self._rules = BearerRules.of(**requirements)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] in {"http", "websocket"}:
            try:
                found = await check(scope, self._gateway, self._rules)
            except RejectedError as error:
                await _reject(error.response, scope, send)
                return
            # `auth` is where Starlette's `requires` looks for scopes.
            scope = {**scope, IDENTITY: found, "auth": found}
        await self._app(scope, receive, send)


async def check(scope: Scope, gateway: EmbeddedGateway, rules: BearerRules) -> Identity | None:
    """Return the caller of a connection; None for one without a token, where that is allowed.
    Raises `RejectedError`."""
    context = await gateway.check(_read_request(scope, gateway), rules)
    return None if context.token is None else Identity.of(context.token.token)


def find_identity(connection: HasScope) -> Identity | None:
    """Return the caller of a connection; None where it has no token. Raises `KeyError` where no
    token was checked."""
    found: Identity | None = connection.scope[IDENTITY]
    return found


def identity(connection: HasScope) -> Identity:
    """Return the caller of a connection. Raises `LookupError` where it has none."""
    found = find_identity(connection)
    if found is None:
        raise LookupError("the request has no token; use find_identity where that is allowed")
    return found


def _read_request(scope: Scope, gateway: EmbeddedGateway) -> Request:
    path = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    client, server = scope.get("client"), scope.get("server")
    is_local = client is None and server is not None and server[1] is None
    chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain")
    scheme: str = scope.get("scheme", "http")
    return gateway.read_request(
        scope.get("method", "GET"),
        b"%b?%b" % (path.partition(b"?")[0], scope.get("query_string", b"")),
        scope["headers"],
        address="" if is_local else client[0] if client else None,
        scheme=_SCHEMES.get(scheme, scheme),
        certificate=ssl.PEM_cert_to_DER_cert(chain[0]) if chain else None,
        is_http_11=scope.get("http_version") == "1.1",
    )


async def _reject(response: DirectResponse, scope: Scope, send: Send) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})  # the server responds 403
            return
    fields = (*response.headers, ("Content-Length", str(len(response.body))))
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    await send({"type": f"{kind}.start", "status": response.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": response.body})
