"""The admin API of clients and tokens: what the console does, for programs.

Bodies are JSON and nothing else, so that no web page can make a browser send one
without asking first; there is no CORS, so asking does not help either.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, TypedDict, TypeVar

import msgspec

from gateway.admin.actions import AdminActions
from gateway.admin.descriptions import (
    ClientDescription,
    Positive,
    describe_client,
    inspect_token,
)
from gateway.admin.operations import Call, operation
from gateway.admin.problems import ApiError
from gateway.oauth.client_metadata import REGISTRABLE, merge_metadata, read_metadata
from gateway.oauth.endpoints.introspection import TokenDescription
from gateway.oauth.models import Client, Clock
from gateway.oauth.server import AuthorizationServer, RegisteredClient
from gateway.rate_limit import RateLimit
from gateway.units import MAX_DURATION_S

Found = TypeVar("Found")

Text = Annotated[str, msgspec.Meta(min_length=1)]
PageLimit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
WITH_METADATA = msgspec.Meta(
    extra_json_schema={"allOf": [{"$ref": "#/components/schemas/ClientMetadata"}]},
    # Those of a description change nothing, so that one can be sent back with changes.
    extra={
        "also": frozenset(REGISTRABLE)
        | {"client_id", "client_id_issued_at", "client_secret_expires_at", "expired"}
        | {"rate_limit", "registered_by", "previous_secret_expires_at"}
        | {"managed_by", "disabled_at"}
    },
)
"""The members of RFC 7591, too."""

CLIENT = "/api/v1/clients/{client_id}"
MAX_OVERLAP_S = 30 * 86400


DescribedClient = Annotated[ClientDescription, WITH_METADATA]


class ClientPage(TypedDict):
    """Clients by id."""

    clients: list[DescribedClient]
    next: str | None


class RevokedTokens(TypedDict):
    """How many live tokens of a client were revoked."""

    client_id: str
    tokens_revoked: int


class ClientUsageReport(TypedDict):
    """How much a client is used."""

    client_id: str
    live_tokens: int
    tokens_issued: int
    last_used: int | None


class RevokedToken(TypedDict):
    """Whether there was such a token."""

    revoked: bool


class ClientsQuery(msgspec.Struct):
    """Which clients."""

    q: str = ""
    after: str = ""
    limit: PageLimit = 100


class ClientChanges(msgspec.Struct):
    """Members of a registration. Members of RFC 7591 that are null get their default."""

    client_name: str | None = None
    scope: str | None = None


class NewClient(ClientChanges):
    """A client to register."""

    client_id: str | None = None
    client_secret: str | None = None
    replace: bool = False


class Rotation(msgspec.Struct):
    """A new secret. The old one works for another `overlap_seconds`."""

    client_secret: str | None = None
    revoke_tokens: bool = False
    overlap_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_OVERLAP_S)] = 0


class Limit(msgspec.Struct):
    """A rate limit; `burst` is as `requests` where it is not given."""

    requests: Positive
    per_seconds: Annotated[float, msgspec.Meta(ge=0.001, le=MAX_DURATION_S)] = 1
    burst: Positive | None = None


class TokenValue(msgspec.Struct):
    """A token."""

    token: Text


class ClientsApi:
    """The operations on clients and their tokens."""

    def __init__(
        self, server: AuthorizationServer, actions: AdminActions, *, wall_clock: Clock = time.time
    ) -> None:
        self._server = server
        self._actions = actions
        self._wall_clock = wall_clock

    @operation("GET", "/api/v1/clients")
    async def list_clients(self, call: Call, query: ClientsQuery) -> ClientPage:
        """List clients."""
        clients = await self._server.search_clients(query.q, after=query.after, limit=query.limit)
        return {
            "clients": [self._describe(client) for client in clients],
            "next": clients[-1].client_id if len(clients) == query.limit else None,
        }

    @operation("POST", "/api/v1/clients", status=201, fails=(409,))
    async def create_client(
        self, call: Call, body: Annotated[NewClient, WITH_METADATA]
    ) -> DescribedClient:
        """Register a client."""
        registered = await self._actions.create_client(
            call.actor,
            client_id=body.client_id,
            client_secret=body.client_secret,
            client_name=body.client_name,
            scopes=_split(body.scope),
            metadata=read_metadata(call.members),
            replace_existing=body.replace,
        )
        return self._describe_registered(registered)

    @operation("GET", CLIENT, fails=(404,))
    async def show_client(self, call: Call, client_id: str) -> DescribedClient:
        """Show a client."""
        return self._describe(await self._server.store.clients.get_client(client_id))

    @operation("PATCH", CLIENT, fails=(404, 409))
    async def update_client(
        self, call: Call, client_id: str, body: Annotated[ClientChanges, WITH_METADATA]
    ) -> DescribedClient:
        """Change a client."""
        client = await self._actions.update_client(
            call.actor,
            client_id,
            client_name=body.client_name,
            scopes=_split(body.scope),
            metadata=lambda metadata: merge_metadata(metadata, call.members),
        )
        return self._describe(client)

    @operation("DELETE", CLIENT, fails=(404, 409))
    async def delete_client(self, call: Call, client_id: str) -> RevokedTokens:
        """Delete a client."""
        revoked = _found(await self._actions.delete_client(call.actor, client_id))
        return {"client_id": client_id, "tokens_revoked": revoked}

    @operation("POST", CLIENT + "/renew", fails=(404, 409))
    async def renew_client(self, call: Call, client_id: str) -> DescribedClient:
        """Extend a client's registration."""
        return self._describe(await self._actions.renew_client(call.actor, client_id))

    @operation("POST", CLIENT + "/rotate", fails=(404, 409))
    async def rotate_secret(self, call: Call, client_id: str, body: Rotation) -> DescribedClient:
        """Give a client a new secret."""
        registered = await self._actions.rotate_secret(
            call.actor,
            client_id,
            client_secret=body.client_secret,
            revoke_tokens=body.revoke_tokens,
            overlap_s=float(body.overlap_seconds),
        )
        return self._describe_registered(_found(registered))

    @operation("DELETE", CLIENT + "/previous-secret", fails=(404, 409))
    async def end_overlap(self, call: Call, client_id: str) -> DescribedClient:
        """End the time in which a client's previous secret works."""
        return self._describe(await self._actions.end_overlap(call.actor, client_id))

    @operation("POST", CLIENT + "/revoke-tokens", fails=(404,))
    async def revoke_client_tokens(self, call: Call, client_id: str) -> RevokedTokens:
        """Revoke all tokens of a client."""
        revoked = _found(await self._actions.revoke_client_tokens(call.actor, client_id))
        return {"client_id": client_id, "tokens_revoked": revoked}

    @operation("GET", CLIENT + "/usage", fails=(404,))
    async def show_usage(self, call: Call, client_id: str) -> ClientUsageReport:
        """Show how much a client is used."""
        _found(await self._server.store.clients.get_client(client_id))
        usage = (await self._server.store.usage.client_usage([client_id])).get(client_id)
        return {
            "client_id": client_id,
            "live_tokens": await self._server.store.usage.count_tokens(client_id),
            "tokens_issued": usage.tokens_issued if usage else 0,
            "last_used": int(usage.last_used) if usage and usage.last_used else None,
        }

    @operation("PUT", CLIENT + "/rate-limit", fails=(404, 409))
    async def limit_client(self, call: Call, client_id: str, body: Limit) -> DescribedClient:
        """Give a client its own rate limit."""
        limit = RateLimit(body.requests, float(body.per_seconds), body.burst or body.requests)
        return self._describe(await self._actions.limit_client(call.actor, client_id, limit))

    @operation("DELETE", CLIENT + "/rate-limit", fails=(404, 409))
    async def unlimit_client(self, call: Call, client_id: str) -> DescribedClient:
        """Give it that of all clients."""
        return self._describe(await self._actions.limit_client(call.actor, client_id, None))

    @operation("POST", "/api/v1/tokens/inspect", is_safe=True)
    async def inspect_token(self, call: Call, body: TokenValue) -> TokenDescription:
        """Describe a token (RFC 7662)."""
        return await inspect_token(self._server, body.token)

    @operation("POST", "/api/v1/tokens/revoke")
    async def revoke_token(self, call: Call, body: TokenValue) -> RevokedToken:
        """Revoke a token."""
        client_id = await self._actions.revoke_token(call.actor, body.token)
        return {"revoked": client_id is not None}

    def _describe(self, client: Client | None) -> ClientDescription:
        return describe_client(_found(client), self._wall_clock())

    def _describe_registered(self, registered: RegisteredClient) -> ClientDescription:
        return {
            **self._describe(registered.client),
            "client_secret": registered.client_secret,
        }


def _split(scope: str | None) -> Sequence[str] | None:
    return None if scope is None else scope.split()


def _found(value: Found | None) -> Found:
    if value is None:
        raise ApiError(404, "no_such_client", "There is no such client.")
    return value
