"""The admin API of API keys."""

from __future__ import annotations

from typing import Annotated, TypedDict

import msgspec

from gateway.admin.actions import AdminActions
from gateway.admin.api import CLIENT, MAX_OVERLAP_S, Limit, Text
from gateway.admin.descriptions import ApiKeyDescription, Lifetime, describe_api_key
from gateway.admin.operations import Call, operation
from gateway.admin.problems import ApiError
from gateway.oauth.api_keys import ApiKey, KeySettings, NewApiKey
from gateway.oauth.server import AuthorizationServer
from gateway.rate_limit import RateLimit

KEYS = CLIENT + "/api-keys"
KEY = KEYS + "/{key_id}"


class ApiKeyList(TypedDict):
    """The keys of a client, the oldest first."""

    api_keys: list[ApiKeyDescription]


class FoundApiKey(TypedDict):
    """A key that was looked up by its value; null where there is none."""

    found: ApiKeyDescription | None


class NewKey(msgspec.Struct):
    """An API key to create."""

    name: Text
    scope: str | None = None
    expires_in: Lifetime | None = None
    rate_limit: Limit | None = None


class KeyRotation(msgspec.Struct):
    """A new key in place of one, which works for another `overlap_seconds`."""

    overlap_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_OVERLAP_S)] = 0


class KeyValue(msgspec.Struct):
    """An API key."""

    api_key: Text


class ApiKeysApi:
    """The operations on API keys."""

    def __init__(self, server: AuthorizationServer, actions: AdminActions) -> None:
        self._server = server
        self._actions = actions

    @operation("GET", KEYS, fails=(404,))
    async def list_api_keys(self, call: Call, client_id: str) -> ApiKeyList:
        """List the API keys of a client."""
        if await self._server.store.clients.get_client(client_id) is None:
            raise _no_such_client()
        keys = await self._server.api_keys.list(client_id)
        return {"api_keys": [self._describe(key) for key in keys]}

    @operation("POST", KEYS, status=201, fails=(404,))
    async def create_api_key(self, call: Call, client_id: str, body: NewKey) -> ApiKeyDescription:
        """Create an API key, which is in this response alone."""
        limit = body.rate_limit
        settings = KeySettings(
            name=body.name,
            scopes=None if body.scope is None else tuple(body.scope.split()),
            ttl_s=None if body.expires_in is None else float(body.expires_in),
            rate_limit=None
            if limit is None
            else RateLimit(limit.requests, float(limit.per_seconds), limit.burst or limit.requests),
        )
        made = await self._actions.create_api_key(call.actor, client_id, settings)
        if made is None:
            raise _no_such_client()
        return self._describe_new(made)

    @operation("DELETE", KEY, fails=(404,))
    async def revoke_api_key(self, call: Call, client_id: str, key_id: str) -> ApiKeyDescription:
        """Revoke an API key."""
        key = await self._actions.revoke_api_key(call.actor, client_id, key_id)
        if key is None:
            raise _no_such_key()
        return self._describe(key)

    @operation("POST", KEY + "/rotate", fails=(404,))
    async def rotate_api_key(
        self, call: Call, client_id: str, key_id: str, body: KeyRotation
    ) -> ApiKeyDescription:
        """Create an API key like another one, which expires."""
        made = await self._actions.rotate_api_key(
            call.actor, client_id, key_id, overlap_s=float(body.overlap_seconds)
        )
        if made is None:
            raise _no_such_key()
        return self._describe_new(made)

    @operation("POST", "/api/v1/api-keys/inspect", is_safe=True)
    async def inspect_api_key(self, call: Call, body: KeyValue) -> FoundApiKey:
        """Find out which API key this is, such as one that was found in a repository."""
        key = await self._server.api_keys.find(body.api_key)
        return {"found": None if key is None else self._describe(key)}

    def _describe(self, key: ApiKey) -> ApiKeyDescription:
        return describe_api_key(key, self._server.now())

    def _describe_new(self, made: NewApiKey) -> ApiKeyDescription:
        return {**self._describe(made.key), "api_key": made.value}


def _no_such_client() -> ApiError:
    return ApiError(404, "no_such_client", "There is no such client.")


def _no_such_key() -> ApiError:
    return ApiError(404, "no_such_api_key", "The client has no such API key.")
