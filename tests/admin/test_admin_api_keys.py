"""API keys in the API of the admin listener, and in the console."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.clients.console_accounts import add_admin
from support.clients.console_visitor import Visitor
from support.running_gateway import RunningGateway, StartGateway, make_config
from support.servers.raw_upstream import RawUpstream

from gateway.oauth.api_keys import PATTERN, make_api_key

KEYS = "/api/v1/clients/a%2Fb/api-keys"


@pytest.fixture
async def keyed(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    """A gateway whose one route takes keys of the client `a/b`."""
    routes = [
        {"name": "k", "match": {"path": "/k"}, "upstream": "main", "credentials": ["api_key"]}
    ]
    gateway = await start(upstream.url, routes=routes)
    await gateway.create_client("a/b")
    return gateway


async def use(gateway: RunningGateway, key: str) -> int:
    async with gateway.session.get(gateway.url("/k"), headers={"X-API-Key": key}) as response:
        return response.status


async def test_key_is_created_listed_found_rotated_and_revoked(keyed: RunningGateway) -> None:
    settings = {
        "name": "partner", "scope": "orders:read", "expires_in": 3600,
        "rate_limit": {"requests": 5, "per_seconds": 60},
    }  # fmt: skip
    status, created = await keyed.call_api("POST", KEYS, settings)
    assert status == 201
    value = created.pop("api_key")
    assert re.fullmatch(PATTERN, value)
    assert await keyed.call_api("GET", KEYS) == (200, {"api_keys": [created]})
    assert created["expires_at"] - created["created_at"] == 3600
    assert created["rate_limit"] == {"requests": 5, "per_seconds": 60.0, "burst": 5}
    inspect = "/api/v1/api-keys/inspect"
    assert await keyed.call_api("POST", inspect, {"api_key": value}) == (200, {"found": created})
    unknown = {"api_key": make_api_key()}
    assert await keyed.call_api("POST", inspect, unknown) == (200, {"found": None})
    one = f"{KEYS}/{created['key_id']}"
    status, rotated = await keyed.call_api("POST", f"{one}/rotate", {"overlap_seconds": 60})
    assert status == 200
    assert (rotated["name"], rotated["scope"]) == ("partner", "orders:read")
    for key in (value, rotated["api_key"]):
        assert await use(keyed, key) == 200
    assert (await keyed.call_api("DELETE", one))[0] == 200
    assert [await use(keyed, key) for key in (value, rotated["api_key"])] == [401, 200]
    _, log = await keyed.call_api("GET", "/api/v1/audit")
    assert [entry["action"] for entry in log["entries"]] == [
        "api_key.revoke", "api_key.rotate", "api_key.create",
    ]  # fmt: skip
    assert value not in str(log)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "invalid_client_metadata"),
        ({"name": "x", "scope": "other"}, "invalid_scope"),
        ({"name": "x", "expires_in": 0}, "expires_in"),
        ({"name": "x", "expires_in": 1e300}, "expires_in"),
        ({"name": "x", "scopes": "orders:read"}, "unknown_member"),
        ({"name": "k", "rate_limit": {}}, "rate_limit"),
    ],
)
async def test_key_with_bad_settings_is_not_created(
    keyed: RunningGateway, body: dict[str, object], reason: str
) -> None:
    status, problem = await keyed.call_api("POST", KEYS, body)
    assert (status, problem["reason"]) == (400, reason)
    assert await keyed.call_api("GET", KEYS) == (200, {"api_keys": []})


async def test_client_or_key_that_is_not_there_is_404(keyed: RunningGateway) -> None:
    missing = "/api/v1/clients/other/api-keys"
    for method, path, reason in (
        ("GET", missing, "no_such_client"),
        ("POST", missing, "no_such_client"),
        ("DELETE", f"{KEYS}/x", "no_such_api_key"),
        ("POST", f"{KEYS}/x/rotate", "no_such_api_key"),
    ):
        body = {"name": "x"} if path == missing and method == "POST" else None
        status, problem = await keyed.call_api(method, path, body)
        assert (status, problem["reason"]) == (404, reason)


async def test_console_creates_a_key_shows_it_once_and_revokes_it(
    keyed: RunningGateway, tmp_path: Path
) -> None:
    await add_admin(make_config(tmp_path))
    alice = Visitor(keyed)
    assert await alice.sign_in() == 303
    client = "/console/clients/a%2Fb"
    assert 'value="90" checked' in await alice.get(f"{client}/api-keys/new")
    keys = f"{client}/api-keys"
    form = {"name": "<b>till</b>", "lifetime": "30", "scope:orders:read": "on"}
    for wrong in ({"lifetime": "31"}, {"name": ""}):
        status, page = await alice.post(keys, **form | wrong)
        assert (status, 'role="alert"' in page) == (400, True)
    status, page = await alice.post(keys, **form)
    assert (status, "<b>till" in page) == (200, False)
    (value,) = re.findall(r'id="value"[^>]*>([^<]+)<', page)
    assert await use(keyed, value) == 200
    shown = await alice.get(client)
    assert value not in shown
    (key_id,) = re.findall(r"api-keys/([0-9a-f]{12})/revoke", shown)
    _, page = await alice.post(f"{keys}/{key_id}/rotate")
    (rotated,) = re.findall(r'id="value"[^>]*>([^<]+)<', page)
    assert [await use(keyed, key) for key in (value, rotated)] == [200, 200]
    assert "<strong>2</strong> API keys stop" in await alice.get(f"{client}/delete")
    assert (await alice.post(f"{keys}/{key_id}/revoke"))[0] == 303
    assert [await use(keyed, key) for key in (value, rotated)] == [401, 200]
    assert (await alice.post(f"{keys}/{key_id}/revoke"))[0] == 404


async def test_viewer_sees_keys_and_changes_none(keyed: RunningGateway, tmp_path: Path) -> None:
    _, created = await keyed.call_api("POST", KEYS, {"name": "till"})
    await add_admin(make_config(tmp_path), name="victor", role="viewer")
    victor = Visitor(keyed)
    assert await victor.sign_in("victor") == 303
    page = await victor.get("/console/clients/a%2Fb")
    assert "till" in page
    assert "Revoke till" not in page
    keys = "/console/clients/a%2Fb/api-keys"
    for path in ("", f"/{created['key_id']}/rotate", f"/{created['key_id']}/revoke"):
        assert (await victor.post(f"{keys}{path}", name="x", lifetime="30"))[0] == 403
    assert await use(keyed, created["api_key"]) == 200
