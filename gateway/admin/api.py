"""The admin API: what the console does, for programs that hold an admin token.

Bodies are JSON and nothing else, so that no web page can make a browser send one
without asking first; there is no CORS, so asking does not help either.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.admin.accounts import ACTOR, Actor
from gateway.admin.accounts.tokens import ApiTokens
from gateway.admin.actions import AdminActions
from gateway.admin.limits import describe_limit, read_limit
from gateway.admin.problems import ProblemError
from gateway.admin.source import Source
from gateway.oauth.client_metadata import merge_metadata, metadata_of, read_metadata
from gateway.oauth.endpoints.tokens import describe_refresh_token
from gateway.oauth.models import Client, Clock
from gateway.oauth.server import AuthorizationServer, RegisteredClient
from gateway.rate_limit import RateLimit

Found = TypeVar("Found")

PREFIX = "/api/v1"
LOOKING = frozenset({f"{PREFIX}/tokens/inspect", f"{PREFIX}/explain"})
"""What changes nothing, though it is a POST."""
MAX_PAGE = 1000


class AdminApi:
    """The handlers under `/api/v1`."""

    def __init__(
        self,
        server: AuthorizationServer,
        actions: AdminActions,
        tokens: ApiTokens,
        *,
        admin_token: Callable[[], str | None],
        source: Source,
        wall_clock: Clock = time.time,
    ) -> None:
        self._server = server
        self._actions = actions
        self._tokens = tokens
        self._admin_token = admin_token
        self._source = source
        self._wall_clock = wall_clock

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Make the handlers known."""
        client = PREFIX + "/clients/{client_id}"
        router.add_get(PREFIX + "/clients", self._list_clients, allow_head=False)
        router.add_post(PREFIX + "/clients", self._create_client)
        router.add_get(client, self._show_client, allow_head=False)
        router.add_patch(client, self._update_client)
        router.add_delete(client, self._delete_client)
        router.add_post(client + "/renew", self._renew_client)
        router.add_post(client + "/rotate", self._rotate_secret)
        router.add_get(client + "/usage", self._show_usage, allow_head=False)
        router.add_post(client + "/revoke-tokens", self._revoke_client_tokens)
        router.add_put(client + "/rate-limit", self._limit_client)
        router.add_delete(client + "/rate-limit", self._unlimit_client)
        router.add_post(PREFIX + "/tokens/inspect", self._inspect_token)
        router.add_post(PREFIX + "/tokens/revoke", self._revoke_token)

    @web.middleware
    async def require_token(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let only those who hold the admin token at the API."""
        if request.path.startswith(PREFIX):
            actor = request[ACTOR] = await self._authenticate(request)
            is_harmless = request.method == "GET" or request.path in LOOKING
            if not actor.is_operator and not is_harmless:
                raise ProblemError(403, "role", "A viewer may look, but not change anything.")
        return await handler(request)

    async def _authenticate(self, request: web.Request) -> Actor:
        fields = request.headers.getall("Authorization", [])
        scheme, _, given = (fields[0] if len(fields) == 1 else "").partition(" ")
        address, own = self._source(request), self._admin_token()
        # Header bytes that are not UTF-8 arrive as surrogate escapes.
        given_bytes = given.encode("utf-8", "surrogateescape")
        if scheme.lower() == "bearer":
            if own is not None and hmac.compare_digest(given_bytes, own.encode()):
                return Actor("admin.token", "operator", address)
            if token := await self._tokens.find(given):
                return Actor(f"token {token.name}", token.role, address)
        if own is None and not await self._tokens.exist():
            raise ProblemError(
                403,
                "admin_api_off",
                "The admin API is off: set admin.token, or run `gateway admin token create`.",
            )
        raise ProblemError(
            401,
            "admin_token",
            "The admin token is missing or wrong.",
            {"WWW-Authenticate": 'Bearer realm="gateway admin"'},
        )

    async def _list_clients(self, request: web.Request) -> web.Response:
        limit = read_page_limit(request)
        clients = await self._server.search_clients(
            request.query.get("q", ""), after=request.query.get("after", ""), limit=limit
        )
        return web.json_response(
            {
                "clients": [describe_client(client, self._wall_clock()) for client in clients],
                "next": clients[-1].client_id if len(clients) == limit else None,
            }
        )

    async def _create_client(self, request: web.Request) -> web.Response:
        body = await read_json(request)
        scope = read_text(body, "scope")
        registered = await self._actions.create_client(
            request[ACTOR],
            client_id=read_text(body, "client_id"),
            client_secret=read_text(body, "client_secret"),
            client_name=read_text(body, "client_name"),
            scopes=None if scope is None else scope.split(),
            metadata=read_metadata(body),
            replace_existing=_flag(body, "replace"),
        )
        return web.json_response(self._describe_registered(registered), status=201)

    async def _show_client(self, request: web.Request) -> web.Response:
        client = _found(await self._server.get_client(request.match_info["client_id"]))
        return web.json_response(describe_client(client, self._wall_clock()))

    async def _update_client(self, request: web.Request) -> web.Response:
        body = await read_json(request)
        scope = read_text(body, "scope")
        client = await self._actions.update_client(
            request[ACTOR],
            request.match_info["client_id"],
            client_name=read_text(body, "client_name"),
            scopes=None if scope is None else scope.split(),
            metadata=lambda metadata: merge_metadata(metadata, body),
        )
        return web.json_response(describe_client(_found(client), self._wall_clock()))

    async def _delete_client(self, request: web.Request) -> web.Response:
        client_id = request.match_info["client_id"]
        revoked = _found(await self._actions.delete_client(request[ACTOR], client_id))
        return web.json_response({"client_id": client_id, "tokens_revoked": revoked})

    async def _renew_client(self, request: web.Request) -> web.Response:
        client = _found(
            await self._actions.renew_client(request[ACTOR], request.match_info["client_id"])
        )
        return web.json_response(describe_client(client, self._wall_clock()))

    async def _rotate_secret(self, request: web.Request) -> web.Response:
        body = await read_json(request)
        client_id = request.match_info["client_id"]
        revoke_tokens = _flag(body, "revoke_tokens")
        registered = _found(
            await self._actions.rotate_secret(
                request[ACTOR],
                client_id,
                client_secret=read_text(body, "client_secret"),
                revoke_tokens=revoke_tokens,
            )
        )
        return web.json_response(self._describe_registered(registered))

    async def _limit_client(self, request: web.Request) -> web.Response:
        return await self._set_limit(request, read_limit(await read_json(request)))

    async def _unlimit_client(self, request: web.Request) -> web.Response:
        return await self._set_limit(request, None)

    async def _set_limit(self, request: web.Request, limit: RateLimit | None) -> web.Response:
        client_id = request.match_info["client_id"]
        client = _found(await self._actions.limit_client(request[ACTOR], client_id, limit))
        return web.json_response(describe_client(client, self._wall_clock()))

    async def _inspect_token(self, request: web.Request) -> web.Response:
        value = _required(await read_json(request), "token")
        return web.json_response(await inspect_token(self._server, value))

    async def _revoke_token(self, request: web.Request) -> web.Response:
        value = _required(await read_json(request), "token")
        client_id = await self._actions.revoke_token(request[ACTOR], value)
        return web.json_response({"revoked": client_id is not None})

    async def _revoke_client_tokens(self, request: web.Request) -> web.Response:
        client_id = request.match_info["client_id"]
        revoked = _found(await self._actions.revoke_client_tokens(request[ACTOR], client_id))
        return web.json_response({"client_id": client_id, "tokens_revoked": revoked})

    async def _show_usage(self, request: web.Request) -> web.Response:
        client_id = request.match_info["client_id"]
        _found(await self._server.get_client(client_id))
        usage = (await self._server.client_usage([client_id])).get(client_id)
        return web.json_response(
            {
                "client_id": client_id,
                "live_tokens": await self._server.count_tokens(client_id),
                "tokens_issued": usage.tokens_issued if usage else 0,
                "last_used": int(usage.last_used) if usage and usage.last_used else None,
            }
        )

    def _describe_registered(self, registered: RegisteredClient) -> dict[str, object]:
        return {
            **describe_client(registered.client, self._wall_clock()),
            "client_secret": registered.client_secret,
        }


def describe_client(client: Client, now: float) -> dict[str, object]:
    """A client for people and programs, in the words of RFC 7591; never its secret."""
    return {
        "client_id": client.client_id,
        "client_name": client.client_name,
        "scope": " ".join(client.scopes),
        "client_id_issued_at": int(client.created_at),
        "client_secret_expires_at": int(client.expires_at or 0),
        "expired": client.is_expired(now),
        **metadata_of(client).described(),
        **({} if client.rate_limit is None else {"rate_limit": describe_limit(client.rate_limit)}),
    }


async def inspect_token(server: AuthorizationServer, value: str) -> dict[str, object]:
    """An access token or a refresh token in the words of RFC 7662. Raises
    `StoreUnavailableError`."""
    token = await server.inspect_token(value)
    if token is None:
        state = await server.refresh_tokens.inspect(value)
        return {"active": False} if state is None else describe_refresh_token(state)
    return {
        "active": True,
        "client_id": token.client_id,
        "scope": token.scope,
        "iat": int(token.issued_at),
        "exp": int(token.expires_at),
    }


def read_page_limit(request: web.Request) -> int:
    """How many items a page shall hold. Raises `ProblemError`."""
    try:
        limit = int(request.query.get("limit", "100"))
    except ValueError:
        limit = 0
    if not 0 < limit <= MAX_PAGE:
        raise ProblemError(400, "limit", f"limit must be 1 to {MAX_PAGE}.")
    return limit


async def read_json(request: web.Request) -> dict[str, Any]:
    """The object in a body, empty where there is none. Raises `ProblemError`."""
    if not request.body_exists:
        return {}
    if request.content_type != "application/json":
        raise ProblemError(415, "content_type", "The body must be application/json.")
    try:
        return msgspec.json.decode(await request.read(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # `from None`: the body may hold a secret.
        raise ProblemError(400, "body", "The body must be a JSON object.") from None


def read_text(body: dict[str, Any], name: str) -> str | None:
    """The text in a member. Raises `ProblemError`."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ProblemError(400, name, f"{name} must be a string.")
    return value


def _required(body: dict[str, Any], name: str) -> str:
    value = read_text(body, name)
    if not value:
        raise ProblemError(400, name, f"{name} is required.")
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise ProblemError(400, name, f"{name} must be true or false.")
    return value


def _found(value: Found | None) -> Found:
    if value is None:
        raise ProblemError(404, "no_such_client", "There is no such client.")
    return value
