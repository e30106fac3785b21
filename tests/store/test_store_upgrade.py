"""Stores that gateway 0.1.0 wrote, opened by this one: nobody notices the upgrade.

`version_0_1` is what commit 7213db34~1 left in a SQLite file and in a Redis: two clients, of which
one has a user's refresh token; live tokens, a revoked one, and one of a client that was deleted; a
user, an admin user and a token of the admin API. All that is valid is so for 100 years.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import redis
from support.clients.console_visitor import Visitor
from support.provider import basic
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

KEPT = Path(__file__).parent / "version_0_1"
PASSWORD = "correct horse battery"
PROVIDER = {
    "grant_types": ["client_credentials", "authorization_code"],
    "refresh_tokens": {"strategy": "rotating"},
    "users": {"source": "store"},
}


def fill_sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript((KEPT / "store.sql").read_text())
    connection.close()


def fill_redis(port: int) -> None:
    with redis.Redis(port=port, decode_responses=False) as server:
        for one in json.loads((KEPT / "redis.json").read_text()):
            key, value = encode(one["key"]), one["value"]
            if one["type"] == "hash":
                server.hset(
                    key, mapping={encode(name): encode(text) for name, text in value.items()}
                )
            elif one["type"] == "zset":
                server.zadd(key, {encode(member): score for member, score in value})
            elif one["type"] == "stream":
                for number, fields in value:
                    server.xadd(
                        key, {encode(name): encode(text) for name, text in fields.items()}, number
                    )
            else:
                server.set(key, encode(value))
            if one["expires_ms"] is not None:
                server.pexpireat(key, one["expires_ms"])


def encode(text: str) -> bytes:
    return text.encode("latin-1")


@pytest.fixture(params=["sqlite", "redis"])
async def kept(
    request: pytest.FixtureRequest, start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> tuple[RunningGateway, dict[str, str]]:
    """A gateway on a store of 0.1.0, and what was issued then."""
    sections: dict[str, Any] = {"provider": PROVIDER}
    if request.param == "sqlite":
        fill_sqlite(tmp_path / "gateway.db")
    else:
        server = request.getfixturevalue("redis_server")
        fill_redis(server.port)
        sections["store"] = server.url
    issued = json.loads((KEPT / "credentials.json").read_text())[request.param]
    return await start(upstream.url, **sections), issued


async def status_with(gateway: RunningGateway, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url("/api/x"), headers=headers) as response:
        return response.status


async def post(
    gateway: RunningGateway, path: str, client_id: str, secret: str, **form: str
) -> tuple[int, Any]:
    async with gateway.session.post(
        gateway.url(path), data=form, headers=basic(client_id, secret)
    ) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None


async def test_tokens_of_the_version_before_are_what_they_were(
    kept: tuple[RunningGateway, dict[str, str]],
) -> None:
    gateway, issued = kept
    assert await status_with(gateway, issued["token"]) == 200
    assert await status_with(gateway, issued["user_token"]) == 200
    assert await status_with(gateway, issued["revoked_token"]) == 401
    assert await status_with(gateway, issued["token_of_deleted_client"]) == 401
    found = await post(
        gateway, "/introspect", "web", issued["web_secret"], token=issued["user_token"]
    )
    assert (found[1]["active"], found[1]["sub"], found[1]["scope"]) == (
        True,
        "alice",
        "orders:read",
    )
    revoked = await post(gateway, "/revoke", "shop", issued["client_secret"], token=issued["token"])
    assert revoked[0] == 200
    assert await status_with(gateway, issued["token"]) == 401


async def test_client_of_the_version_before_gets_tokens_which_end_with_it(
    kept: tuple[RunningGateway, dict[str, str]],
) -> None:
    gateway, issued = kept
    token = await gateway.get_token("shop", secret=issued["client_secret"])
    assert await status_with(gateway, token) == 200
    status, _ = await gateway.call_api("DELETE", "/api/v1/clients/shop")
    assert status == 200
    for one in (token, issued["token"]):
        assert await status_with(gateway, one) == 401
    assert await status_with(gateway, issued["user_token"]) == 200, "of another client"


async def test_refresh_token_of_the_version_before_is_rotated_and_its_reuse_detected(
    kept: tuple[RunningGateway, dict[str, str]],
) -> None:
    gateway, issued = kept

    async def refresh(token: str) -> tuple[int, Any]:
        return await post(
            gateway, "/token", "web", issued["web_secret"],
            grant_type="refresh_token", refresh_token=token,
        )  # fmt: skip

    status, first = await refresh(issued["refresh_token"])
    assert (status, first["scope"]) == (200, "orders:read")
    status, second = await refresh(first["refresh_token"])
    assert status == 200
    assert await status_with(gateway, second["access_token"]) == 200
    assert (await refresh(issued["refresh_token"]))[0] == 400
    assert (await refresh(second["refresh_token"]))[0] == 400, "the family is revoked"
    assert await status_with(gateway, second["access_token"]) == 401


async def test_operators_of_the_version_before_sign_in(
    kept: tuple[RunningGateway, dict[str, str]],
) -> None:
    gateway, issued = kept
    assert await Visitor(gateway).sign_in("root", PASSWORD) == 303
    admin = {"Authorization": f"Bearer {issued['admin_token']}"}
    for path, names in (("clients", {"shop", "web"}), ("users", {"alice"})):
        url = gateway.admin_url(f"/api/v1/{path}")
        async with gateway.session.get(url, headers=admin) as response:
            assert response.status == 200
            (listed,) = [
                part for part in (await response.json()).values() if isinstance(part, list)
            ]
        assert {one.get("client_id") or one["username"] for one in listed} == names
    async with gateway.session.get(gateway.admin_url("/api/v1/audit"), headers=admin) as response:
        actions = {one["action"] for one in (await response.json())["entries"]}
    assert {"client.create", "client.delete"} <= actions
