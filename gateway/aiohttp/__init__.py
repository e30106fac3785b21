"""The provider and the bearer check in an aiohttp application.

    gateway = EmbeddedGateway("gateway.yaml")
    app = web.Application(middlewares=[bearer_middleware(gateway)])
    app.cleanup_ctx.append(cleanup_ctx(gateway))
    app.add_routes(provider_routes(gateway))

Nothing here decides anything about clients or tokens: requests are handed to `EmbeddedGateway`, and
what comes back is sent. `docs/aiohttp.md` describes each name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, Unpack

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from gateway.aiohttp.messages import CONTEXT, make_response, read_request
from gateway.aiohttp.proxy import proxy_handler
from gateway.app.embedded import (
    BearerRules,
    ConfigSource,
    EmbeddedGateway,
    Identity,
    RejectedError,
    Requirements,
    rejected,
)
from gateway.oauth.endpoints import provider_operations
from gateway.oauth.endpoints.discovery import PROTECTED_RESOURCE
from gateway.oauth.errors import InsufficientScopeError, MissingTokenError
from gateway.proxy.context import RequestContext

__all__ = [
    "EmbeddedGateway",
    "Identity",
    "bearer_middleware",
    "cleanup_ctx",
    "discovery_routes",
    "find_identity",
    "identity",
    "provider_app",
    "provider_routes",
    "proxy_handler",
    "public",
    "require_scopes",
]

Guarded = TypeVar("Guarded", bound=Callable[..., Any])
_PUBLIC = "__gateway_public__"
_SCOPES = "__gateway_scopes__"


def cleanup_ctx(gateway: EmbeddedGateway) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what starts `gateway` with an application and stops it with it."""

    async def run(app: web.Application) -> AsyncIterator[None]:
        async with gateway:
            yield

    return run


def provider_app(gateway: EmbeddedGateway | ConfigSource) -> web.Application:
    """Make an application of the provider's paths, to be run alone, or mounted with
    `add_subapp(gateway.mount, ...)` or `add_domain`. Raises `ConfigError`."""
    if not isinstance(gateway, EmbeddedGateway):
        gateway = EmbeddedGateway(gateway)
    app = web.Application()
    app.add_routes(provider_routes(gateway, below=gateway.mount))
    app.cleanup_ctx.append(cleanup_ctx(gateway))
    return app


def discovery_routes(gateway: EmbeddedGateway) -> list[web.RouteDef]:
    """Return the routes of the documents that belong to the root of a host (RFC 8414 section 3.1,
    RFC 9728 section 3.1), for the application that has `provider_app` mounted below it."""
    mounted = f"{gateway.mount}/"
    return [one for one in provider_routes(gateway) if not one.path.startswith(mounted)]


def provider_routes(gateway: EmbeddedGateway, *, below: str = "") -> list[web.RouteDef]:
    """Return the routes of all paths of the provider, for the application at the root, or for one
    that is mounted `below` a path."""

    def handler(path: str) -> Handler:
        @public
        async def respond(request: web.Request) -> web.StreamResponse:
            made = read_request(request, gateway, path + request.match_info.get("page", ""))
            try:
                return make_response(await gateway.respond(made, request.content.iter_any()))
            except RejectedError as error:
                return make_response(error.response)

        return respond

    policy = gateway.policy
    served = {path: path for path in provider_operations(policy)}
    for path in {policy.authorize_path, PROTECTED_RESOURCE} & served.keys():
        served[path + "{page:/.+}"] = path
    return [
        web.route(hdrs.METH_ANY, pattern.removeprefix(below), handler(path))
        for pattern, path in served.items()
    ]


def bearer_middleware(gateway: EmbeddedGateway, **requirements: Unpack[Requirements]) -> Middleware:
    """Return a middleware that lets only requests pass whose token is valid and meets
    `requirements` and the handler's `require_scopes`. `public` handlers need none."""
    rules = BearerRules.of(**requirements)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        serving = request.match_info.handler
        is_public = getattr(serving, _PUBLIC, False)
        if isinstance(serving, type):  # of a class-based view, the method serves
            serving = getattr(serving, request.method.lower(), serving)
        if is_public or getattr(serving, _PUBLIC, False):
            return await handler(request)
        needed = rules.requiring(getattr(serving, _SCOPES, frozenset()))
        try:
            request[CONTEXT] = await gateway.check(read_request(request, gateway), needed)
            return await handler(request)
        except RejectedError as error:
            return make_response(error.response)

    return check


def _context(request: web.Request) -> RequestContext:
    context: RequestContext | None = request.get(CONTEXT)
    if context is None:
        raise RuntimeError("no token was checked: the application needs bearer_middleware(gateway)")
    return context


def find_identity(request: web.Request) -> Identity | None:
    """Return the caller of a request; None where it has no token. Raises `RuntimeError` where
    `bearer_middleware` did not see the request."""
    token = _context(request).token
    return None if token is None else Identity.of(token.token)


def identity(request: web.Request) -> Identity:
    """Return the caller of a request. Raises `RejectedError`, which the middleware makes a 401 of,
    where it has no token, and `RuntimeError` as `find_identity`."""
    found = find_identity(request)
    if found is None:
        raise rejected(MissingTokenError(), _context(request))
    return found


def public(handler: Guarded) -> Guarded:
    """Let requests without a token pass to a handler, a class-based view, or one of its methods."""
    setattr(handler, _PUBLIC, True)
    return handler


def require_scopes(*scopes: str) -> Callable[[Guarded], Guarded]:
    """Require scopes of the token, all of them, for a handler, a class-based view, or one of its
    methods; else 403. A handler that `bearer_middleware` does not see is 500."""
    needed = frozenset(scopes)

    def decorate(handler: Guarded) -> Guarded:
        if isinstance(handler, type):
            for name in {method.lower() for method in hdrs.METH_ALL} & vars(handler).keys():
                setattr(handler, name, decorate(vars(handler)[name]))
            return handler
        if not inspect.iscoroutinefunction(handler):
            raise TypeError(f"{handler!r} is no coroutine function and no class-based view")

        @functools.wraps(handler)
        async def guard(*args: Any) -> Any:
            # The middleware has checked the scopes, unless it did not see the decorator.
            request = args[-1] if isinstance(args[-1], web.Request) else args[-1].request
            if not needed <= identity(request).scopes:
                raise rejected(InsufficientScopeError(needed), _context(request))
            return await handler(*args)

        setattr(guard, _SCOPES, needed | getattr(handler, _SCOPES, frozenset()))
        return guard  # type: ignore[return-value]

    return decorate
