"""Authentication of requests to the admin listener: source address and bearer token."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.addresses import Networks, find_client, plain_address
from gateway.admin.accounts import Actor
from gateway.admin.accounts.tokens import ApiTokens
from gateway.admin.operations import ACTOR, PREFIX
from gateway.admin.problems import ApiError

Source = Callable[[web.Request], str]


def source_behind(trusted_proxies: Networks) -> Source:
    """Returns the address of the client, as far as it can be trusted: that of the peer or, where
    the peer is a trusted proxy, what it says."""

    def source(request: web.Request) -> str:
        def values(name: str) -> list[bytes]:
            given = request.headers.getall(name, [])
            return [value.encode("utf-8", "surrogateescape") for value in given]

        peer = plain_address(request.remote or "")
        return find_client(
            peer,
            trusted_proxies,
            forwarded_for=values("X-Forwarded-For"),
            forwarded_proto=values("X-Forwarded-Proto"),
            forwarded=values("Forwarded"),
        ).address

    return source


def require_token(
    tokens: ApiTokens, *, admin_token: Callable[[], str | None], source: Source
) -> Middleware:
    """Middleware that rejects requests to the API without a valid token.

    `admin_token` is asked with each request for one that is taken beside those of `tokens`.
    """

    async def authenticate(request: web.Request) -> Actor:
        fields = request.headers.getall("Authorization", [])
        scheme, _, given = (fields[0] if len(fields) == 1 else "").partition(" ")
        address, own = source(request), admin_token()
        # Header bytes that are not UTF-8 arrive as surrogate escapes.
        given_bytes = given.encode("utf-8", "surrogateescape")
        if scheme.lower() == "bearer":
            if own is not None and hmac.compare_digest(given_bytes, own.encode()):
                return Actor("admin.token", "operator", address)
            if token := await tokens.find(given):
                return Actor(f"token {token.name}", token.role, address)
        if own is None and not await tokens.exist():
            raise ApiError(
                403,
                "admin_api_off",
                "The admin API is off: set admin.token, or run `gateway admin token create`.",
            )
        raise ApiError(
            401,
            "admin_token",
            "The admin token is missing or wrong.",
            {"WWW-Authenticate": 'Bearer realm="gateway admin"'},
        )

    @web.middleware
    async def require(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(PREFIX):
            request[ACTOR] = await authenticate(request)
        return await handler(request)

    return require
