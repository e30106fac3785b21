"""Routes that accept API keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import until
from support.protocols import both_protocols, only_http1
from support.running_gateway import RunningGateway, StartGateway, basic
from support.servers.raw_upstream import RawUpstream

from gateway.oauth.api_keys import make_api_key

pytestmark = both_protocols

ROUTES: list[dict[str, Any]] = [
    {"name": "bearer", "match": {"path": "/bearer"}, "upstream": "main"},
    {
        "name": "key",
        "match": {"path": "/key"},
        "upstream": "main",
        "credentials": ["api_key"],
        "scopes": ["orders:read"],
    },
    {
        "name": "write",
        "match": {"path": "/write"},
        "upstream": "main",
        "credentials": ["api_key"],
        "scopes": ["orders:write"],
    },
    {
        "name": "any",
        "match": {"path": "/any"},
        "upstream": "main",
        "credentials": ["bearer", "api_key"],
    },
    {
        "name": "maybe-key",
        "match": {"path": "/maybe-key"},
        "upstream": "main",
        "credentials": ["api_key"],
        "auth": "optional",
    },
    {
        "name": "shown",
        "match": {"path": "/shown"},
        "upstream": "main",
        "credentials": ["api_key"],
        "forward_credentials": True,
        "forward_token": True,
    },
]


@pytest.fixture
async def keyed(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    gateway = await start(upstream.url, routes=ROUTES)
    await gateway.create_client("shop", client_name="The shop")
    return gateway


async def make_key(gateway: RunningGateway, client_id: str = "shop", **body: Any) -> dict[str, Any]:
    status, key = await gateway.call_api(
        "POST", f"/api/v1/clients/{client_id}/api-keys", {"name": "a key"} | body
    )
    assert status == 201, key
    return key


async def status_of(gateway: RunningGateway, path: str, *fields: tuple[str, str]) -> int:
    async with gateway.session.get(gateway.url(path), headers=fields) as response:
        await response.read()
        return response.status


async def test_key_opens_routes_that_accept_keys_and_is_not_forwarded(
    keyed: RunningGateway, upstream: RawUpstream
) -> None:
    key = await make_key(keyed, scope="orders:read")
    by_header, by_bearer = (
        ("X-API-Key", key["api_key"]),
        ("Authorization", f"Bearer {key['api_key']}"),
    )
    for path in ("/key", "/any", "/maybe-key"):
        assert await status_of(keyed, path, by_header) == 200
        received = upstream.requests[-1]
        assert received.all(b"x-client-id") == [b"shop"]
        assert received.all(b"x-client-name") == [b"The shop"]
        assert received.all(b"x-token-scopes") == [b"orders:read"]
        assert received.all(b"x-api-key") == []
        assert await status_of(keyed, path, by_bearer) == 200
        assert upstream.requests[-1].all(b"authorization") == []
    assert await status_of(keyed, "/write", by_header) == 403
    count = len(upstream.requests)
    for wrong in (by_header, by_bearer):
        assert await status_of(keyed, "/bearer", wrong) == 401, "it must opt in"
    assert len(upstream.requests) == count


async def test_key_is_forwarded_where_the_route_says_so(
    keyed: RunningGateway, upstream: RawUpstream
) -> None:
    value = (await make_key(keyed))["api_key"]
    own = ("Authorization", "Basic dXBzdHJlYW06cw==")
    assert await status_of(keyed, "/shown", ("X-API-Key", value), own) == 200
    assert upstream.requests[-1].all(b"x-api-key") == [value.encode()]
    assert upstream.requests[-1].all(b"authorization") == [own[1].encode()]


async def test_route_without_keys_leaves_the_field_to_its_upstream(
    keyed: RunningGateway, upstream: RawUpstream
) -> None:
    token = ("Authorization", f"Bearer {await keyed.get_token('shop')}")
    assert await status_of(keyed, "/bearer", token, ("X-API-Key", "its own")) == 200
    assert upstream.requests[-1].all(b"x-api-key") == [b"its own"]


async def test_wrong_credentials_are_rejected_with_the_challenges_of_the_route(
    keyed: RunningGateway, upstream: RawUpstream
) -> None:
    token = await keyed.get_token("shop")
    value = (await make_key(keyed))["api_key"]
    api_key = 'ApiKey realm="gateway", in="header", name="x-api-key"'
    for path, fields, status, challenges in (
        ("/key", [], 401, [api_key]),
        ("/key", [("X-API-Key", "")], 401, [api_key]),
        ("/key", [("X-API-Key", make_api_key())], 401, [api_key]),
        ("/key", [("X-API-Key", value[:-1] + ("x" if value[-1] != "x" else "y"))], 401, [api_key]),
        ("/key", [("X-API-Key", token)], 401, [api_key]),
        ("/key", [("X-API-Key", "x" * 600)], 401, [api_key]),
        ("/key", [("Authorization", f"Bearer {token}")], 401, [api_key]),
        ("/maybe-key", [("X-API-Key", make_api_key())], 401, [api_key]),
        ("/any", [("X-API-Key", value), ("Authorization", f"Bearer {token}")], 400, None),
        ("/key", [("X-API-Key", value), ("X-API-Key", value)], 400, None),
    ):
        async with keyed.session.get(keyed.url(path), headers=fields) as response:
            body = json.loads(await response.read())
            assert response.status == status, (path, body)
            if challenges is not None:
                assert response.headers.getall("WWW-Authenticate") == challenges
            assert value not in json.dumps(body)
    async with keyed.session.get(keyed.url("/any")) as response:
        found = response.headers.getall("WWW-Authenticate")
        assert found[0].startswith("Bearer realm=")
        assert found[1:] == [api_key]
        assert (await response.json())["detail"] == "The bearer token or API key is missing."
    assert upstream.requests == []
    assert await status_of(keyed, "/maybe-key") == 200
    assert upstream.requests[-1].all(b"x-client-id") == []


async def test_revoked_key_is_rejected_at_once_here_and_within_a_second_elsewhere(
    start: StartGateway, upstream: RawUpstream
) -> None:
    here = await start(upstream.url, routes=ROUTES)
    there = await start(upstream.url, routes=ROUTES)
    await here.create_client("shop")
    key = await make_key(here)
    field = ("X-API-Key", key["api_key"])
    for gateway in (here, there):
        assert await status_of(gateway, "/key", field) == 200
    one = f"/api/v1/clients/shop/api-keys/{key['key_id']}"
    assert (await here.call_api("DELETE", one))[0] == 200
    assert await status_of(here, "/key", field) == 401

    async def is_rejected() -> bool:
        return await status_of(there, "/key", field) == 401

    await until(is_rejected)
    assert (await here.call_api("DELETE", one))[0] == 404


async def test_log_names_the_key_by_its_id_and_never_by_its_value(
    keyed: RunningGateway, tmp_path: Path
) -> None:
    key = await make_key(keyed)
    assert await status_of(keyed, "/key/log?x=1", ("X-API-Key", key["api_key"])) == 200

    def line() -> str | None:
        lines = (tmp_path / "access.log").read_text().splitlines()
        return next((one for one in lines if "/key/log" in one), None)

    await until(lambda: line() is not None)
    logged = json.loads(line() or "")
    assert (logged["api_key"], logged["client_id"]) == (key["key_id"], "shop")
    assert key["api_key"] not in (tmp_path / "access.log").read_text()


async def test_key_has_a_rate_limit_of_its_own_beside_its_client(keyed: RunningGateway) -> None:
    limited = await make_key(keyed, rate_limit={"requests": 2, "per_seconds": 3600})
    other = await make_key(keyed)
    statuses = [await status_of(keyed, "/key", ("X-API-Key", limited["api_key"])) for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert await status_of(keyed, "/key", ("X-API-Key", other["api_key"])) == 200


async def test_key_is_no_token_at_the_endpoints_of_the_provider(keyed: RunningGateway) -> None:
    value = (await make_key(keyed))["api_key"]
    assert await status_of(keyed, "/validate", ("Authorization", f"Bearer {value}")) == 401
    async with keyed.session.post(
        keyed.url("/introspect"), data={"token": value}, headers=basic("shop", "secret")
    ) as response:
        assert await response.json() == {"active": False}


async def test_keys_of_a_deleted_client_are_rejected(keyed: RunningGateway) -> None:
    field = ("X-API-Key", (await make_key(keyed))["api_key"])
    assert await status_of(keyed, "/key", field) == 200
    await keyed.call_api("DELETE", "/api/v1/clients/shop")
    assert await status_of(keyed, "/key", field) == 401


@only_http1
async def test_other_header_may_be_named_for_keys(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=ROUTES, provider={"api_keys": {"header": "apikey"}})
    await gateway.create_client("shop")
    value = (await make_key(gateway))["api_key"]
    assert await status_of(gateway, "/key", ("apikey", value)) == 200
    assert upstream.requests[-1].all(b"apikey") == []
    assert await status_of(gateway, "/key", ("X-API-Key", value)) == 401
