"""Clients in the API of the admin listener."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from support.running_gateway import RunningGateway, basic


async def test_client_is_created_shown_listed_and_deleted(gateway: RunningGateway) -> None:
    status, created = await gateway.call_api(
        "POST", "/api/v1/clients", {"client_id": "a/b?c", "client_name": "Å"}
    )
    assert status == 201
    secret = created.pop("client_secret")
    assert len(secret) >= 43
    status, shown = await gateway.call_api("GET", "/api/v1/clients/a%2Fb%3Fc")
    assert (status, shown) == (200, created)
    assert shown["client_name"] == "Å"
    assert shown["expired"] is False
    assert "secret" not in json.dumps(shown).replace("client_secret_expires_at", "")
    status, listed = await gateway.call_api("GET", "/api/v1/clients")
    assert listed == {"clients": [shown], "next": None}
    assert await gateway.call_api("DELETE", "/api/v1/clients/a%2Fb%3Fc") == (
        200,
        {"client_id": "a/b?c", "tokens_revoked": 0},
    )
    assert (await gateway.call_api("GET", "/api/v1/clients/a%2Fb%3Fc"))[0] == 404


async def test_clients_are_listed_in_pages(gateway: RunningGateway) -> None:
    for number in range(5):
        await gateway.create_client(f"c{number}")
    _, first = await gateway.call_api("GET", "/api/v1/clients?limit=3")
    assert first["next"] == "c2"
    _, second = await gateway.call_api("GET", "/api/v1/clients?limit=3&after=c2")
    ids = [client["client_id"] for client in first["clients"] + second["clients"]]
    assert ids == ["c0", "c1", "c2", "c3", "c4"]
    for limit in ("0", "1001", "many"):
        assert (await gateway.call_api("GET", f"/api/v1/clients?limit={limit}"))[0] == 400


async def test_taken_id_is_409_unless_it_shall_be_replaced(gateway: RunningGateway) -> None:
    token = await gateway.token("shop")
    async with gateway.session.get(
        gateway.url("/api/x"), headers={"Authorization": f"Bearer {token}"}
    ) as response:
        assert response.status == 200
    assert (await gateway.call_api("POST", "/api/v1/clients", {"client_id": "shop"}))[0] == 409
    body = {"client_id": "shop", "replace": True}
    assert (await gateway.call_api("POST", "/api/v1/clients", body))[0] == 201
    async with gateway.session.get(
        gateway.url("/api/x"), headers={"Authorization": f"Bearer {token}"}
    ) as response:
        assert response.status == 401


async def test_renewal_extends_the_registration(gateway: RunningGateway) -> None:
    created = await gateway.create_client("shop")
    status, renewed = await gateway.call_api("POST", "/api/v1/clients/shop/renew")
    assert status == 200
    assert renewed["client_secret_expires_at"] >= created["client_secret_expires_at"]
    assert renewed["client_id_issued_at"] == created["client_id_issued_at"]


@pytest.mark.parametrize("revokes", [False, True])
async def test_rotation_changes_the_secret_and_revokes_tokens_on_request(
    gateway: RunningGateway, revokes: bool
) -> None:
    token = await gateway.token("shop")
    status, rotated = await gateway.call_api(
        "POST", "/api/v1/clients/shop/rotate", {"revoke_tokens": revokes}
    )
    assert status == 200
    for secret, expected in (("secret", 401), (rotated["client_secret"], 200)):
        async with gateway.session.post(
            gateway.url("/token"),
            data={"grant_type": "client_credentials"},
            headers=basic("shop", secret),
        ) as response:
            assert response.status == expected
    _, inspected = await gateway.call_api("POST", "/api/v1/tokens/inspect", {"token": token})
    assert inspected["active"] is not revokes


async def test_old_secret_works_for_an_overlap_that_is_shown_and_ended_at_will(
    gateway: RunningGateway,
) -> None:
    await gateway.create_client("shop")
    rotate = "/api/v1/clients/shop/rotate"
    for wrong in (-1, 31 * 86400, "1h"):
        assert (await gateway.call_api("POST", rotate, {"overlap_seconds": wrong}))[0] == 400
    _, rotated = await gateway.call_api("POST", rotate, {"overlap_seconds": 3600})
    _, shown = await gateway.call_api("GET", "/api/v1/clients/shop")
    assert shown["previous_secret_expires_at"] == rotated["previous_secret_expires_at"]
    status, _ = await gateway.call_api("PATCH", "/api/v1/clients/shop", shown)
    assert status == 200, "a description can be sent back"

    async def status_of(secret: str) -> int:
        form = {"grant_type": "client_credentials"}
        headers = basic("shop", secret)
        async with gateway.session.post(
            gateway.url("/token"), data=form, headers=headers
        ) as response:
            return response.status

    assert [await status_of(one) for one in ("secret", rotated["client_secret"])] == [200, 200]
    status, ended = await gateway.call_api("DELETE", "/api/v1/clients/shop/previous-secret")
    assert (status, "previous_secret_expires_at" in ended) == (200, False)
    assert [await status_of(one) for one in ("secret", rotated["client_secret"])] == [401, 200]


async def test_client_is_changed_without_touching_what_is_not_named(
    gateway: RunningGateway,
) -> None:
    await gateway.call_api("POST", "/api/v1/clients",
        {"client_id": "shop", "client_secret": "secret", "contacts": ["a@b.example"],
         "access_token_format": "jwt"},
    )  # fmt: skip
    status, changed = await gateway.call_api("PATCH", "/api/v1/clients/shop",
        {"scope": "orders:read", "client_name": "Shop", "access_token_format": None},
    )  # fmt: skip
    assert (status, changed["scope"], changed["client_name"]) == (200, "orders:read", "Shop")
    assert changed["contacts"] == ["a@b.example"]
    assert "access_token_format" not in changed, "null gives a member its default again"
    assert "." not in await gateway.get_token("shop")
    status, problem = await gateway.call_api(
        "PATCH", "/api/v1/clients/shop", {"grant_types": ["password"]}
    )
    assert (status, problem["reason"]) == (400, "invalid_client_metadata")
    assert (await gateway.call_api("PATCH", "/api/v1/clients/nobody", {}))[0] == 404


async def test_client_gets_a_rate_limit_of_its_own(gateway: RunningGateway) -> None:
    await gateway.create_client("shop")
    path = "/api/v1/clients/shop/rate-limit"
    limit = {"requests": 100, "per_seconds": 1.5, "burst": 50}
    status, body = await gateway.call_api("PUT", path, limit)
    assert (status, body["rate_limit"]) == (200, limit)
    status, body = await gateway.call_api("PUT", path, {"requests": 7})
    assert body["rate_limit"] == {"requests": 7, "per_seconds": 1.0, "burst": 7}
    status, body = await gateway.call_api("GET", "/api/v1/clients/shop")
    assert body["rate_limit"]["requests"] == 7
    status, body = await gateway.call_api("DELETE", path)
    assert status == 200
    assert "rate_limit" not in body
    assert (await gateway.call_api("PUT", "/api/v1/clients/nobody/rate-limit", limit))[0] == 404


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "requests"),
        ({"requests": 0}, "requests"),
        ({"requests": True}, "requests"),
        ({"requests": 1, "per_seconds": 0}, "per_seconds"),
        ({"requests": 1, "per_seconds": "1s"}, "per_seconds"),
        ({"requests": 1, "per_seconds": True}, "per_seconds"),
        ({"requests": 1, "burst": 0.5}, "burst"),
        # Out of what can be calculated with: each request would fail.
        ({"requests": 10**30}, "requests"),
        ({"requests": 1, "burst": 10**30}, "burst"),
        ({"requests": 1, "per_seconds": 1e300}, "per_seconds"),
        ({"requests": 1, "per_seconds": 1e-300}, "per_seconds"),
    ],
)
async def test_rate_limit_that_is_none_is_refused(
    gateway: RunningGateway, body: dict[str, Any], reason: str
) -> None:
    await gateway.create_client("shop")
    status, response = await gateway.call_api("PUT", "/api/v1/clients/shop/rate-limit", body)
    assert (status, response["reason"]) == (400, reason)


@pytest.mark.parametrize("client_id", ["a{b", "a}b", "{id}", "a%b", "a?b#c", "a+b"])
async def test_client_of_any_id_is_reached(gateway: RunningGateway, client_id: str) -> None:
    await gateway.create_client(client_id)
    path = f"/api/v1/clients/{quote(client_id, safe='')}"
    for method, suffix, status in (
        ("GET", "", 200), ("POST", "/renew", 200), ("POST", "/rotate", 200), ("GET", "/usage", 200),
        ("DELETE", "", 200), ("GET", "", 404),
    ):  # fmt: skip
        found, body = await gateway.call_api(method, path + suffix)
        assert found == status, (method, suffix, body)
        if found == 200 and not suffix and method == "GET":
            assert body["client_id"] == client_id


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("POST", "/rotate", {"grace": "1h"}, "'grace'"),
        ("PUT", "/rate-limit", {"requests": 1, "per": "1h"}, "'per'"),
        ("PATCH", "", {"client_nam": "x"}, "did you mean 'client_name'?"),
        ("PATCH", "", {"nonsense": 1, "client_name": "x"}, "'nonsense'"),
    ],
)
async def test_unknown_member_of_a_body_is_rejected_and_nothing_changes(
    gateway: RunningGateway, method: str, path: str, body: dict[str, Any], detail: str
) -> None:
    await gateway.create_client("shop")
    before = await gateway.call_api("GET", "/api/v1/clients/shop")
    status, problem = await gateway.call_api(method, f"/api/v1/clients/shop{path}", body)
    assert status == 400
    assert detail in problem["detail"]
    assert await gateway.call_api("GET", "/api/v1/clients/shop") == before
    await gateway.get_token("shop")  # by the secret it had


async def test_description_can_be_sent_back_with_changes(gateway: RunningGateway) -> None:
    await gateway.create_client("shop")
    _, client = await gateway.call_api("GET", "/api/v1/clients/shop")
    status, changed = await gateway.call_api(
        "PATCH", "/api/v1/clients/shop", {**client, "client_name": "The shop"}
    )
    assert status == 200, changed
    assert changed["client_name"] == "The shop"
