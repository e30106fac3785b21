"""The provider's endpoints: every parameter in every place, and every refusal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import within
from support.provider import FORM, JSON, REGISTER, Provider, basic
from support.stores.faults import break_store

GRANT = "grant_type=client_credentials"


# Tokens.


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (basic("shop", "secret") | FORM, GRANT),
        (basic("shop", "secret") | {"grant_type": "client_credentials"}, ""),
        (FORM, GRANT + "&client_id=shop&client_secret=secret"),
        ({"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"},
         GRANT + "&client_id=shop&client_secret=secret"),
        ({"client_id": "shop", "client_secret": "secret", "grant_type": "client_credentials"}, ""),
        ({"client_id": "shop", "client_secret": "secret"} | FORM, GRANT),
        (basic("shop", "secret") | FORM, GRANT + "&client_id=shop"),
        (basic("shop", "secret") | FORM, GRANT + "&scope="),
    ],
)  # fmt: skip
async def test_token_is_issued_for_credentials_in_each_place(
    provider: Provider, shop: str, headers: dict[str, str], body: str
) -> None:
    reply = await provider.fetch("POST", "/token", headers, body)
    assert reply.status == 200
    token = reply.json.pop("access_token")
    assert len(token) >= 43, "256 random bits"
    assert reply.json == {"token_type": "Bearer", "expires_in": 3600, "scope": "orders:read"}
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Pragma"] == "no-cache"
    inspected = await provider.server.inspect_token(token)
    assert inspected is not None
    assert inspected.client_id == shop


async def test_basic_credentials_are_form_decoded(provider: Provider) -> None:
    await provider.server.register_client(client_id="a%b", client_secret="p+q:r s")
    reply = await provider.fetch("POST", "/token", basic("a%25b", "p%2Bq%3Ar+s") | FORM, GRANT)
    assert reply.status == 200


@pytest.mark.parametrize(
    ("headers", "body", "error"),
    [
        (basic("shop", "secret") | FORM, "", (400, "invalid_request")),
        (basic("shop", "secret") | FORM, "grant_type=password", (400, "unsupported_grant_type")),
        (basic("shop", "secret") | FORM, "grant_type=", (400, "invalid_request")),
        (basic("shop", "secret") | FORM, f"{GRANT}&{GRANT}", (400, "invalid_request")),
        (basic("shop", "secret") | FORM, f"{GRANT}&client_id=shop&client_secret=secret",
         (400, "invalid_request")),
        (basic("shop", "secret") | FORM, f"{GRANT}&client_id=other", (400, "invalid_request")),
        (basic("shop", "secret") | {"client_secret": "secret"} | FORM, GRANT,
         (400, "invalid_request")),
        ({"grant_type": "client_credentials"} | basic("shop", "secret") | FORM, GRANT,
         (400, "invalid_request")),
        (basic("shop", "secret") | JSON, '{"grant_type": "client_credentials"}',
         (400, "invalid_request")),
        (basic("shop", "secret") | {"Content-Type": "multipart/form-data; boundary=x"}, "--x",
         (400, "invalid_request")),
        (basic("shop", "secret"), GRANT, (400, "invalid_request")),
        (basic("shop", "secret") | FORM, f"{GRANT}&scope=nonsense", (400, "invalid_scope")),
        (FORM, GRANT, (401, "invalid_client")),
        (basic("shop", "wrong") | FORM, GRANT, (401, "invalid_client")),
        (basic("nobody", "secret") | FORM, GRANT, (401, "invalid_client")),
        (basic("shop", "") | FORM, GRANT, (401, "invalid_client")),
        ({"Authorization": "Basic !!!"} | FORM, GRANT, (401, "invalid_client")),
        ({"Authorization": "Basic c2hvcA=="} | FORM, GRANT, (401, "invalid_client")),
        ({"Authorization": "Bearer x"} | FORM, GRANT, (401, "invalid_client")),
        (FORM, f"{GRANT}&client_id=shop", (401, "invalid_client")),
    ],
)  # fmt: skip
async def test_token_request_is_refused_with_the_code_of_rfc_6749(
    provider: Provider, shop: str, headers: dict[str, str], body: str, error: tuple[int, str]
) -> None:
    reply = await provider.fetch("POST", "/token", headers, body)
    assert reply.error == error
    assert reply.headers["Cache-Control"] == "no-store"
    if error[0] == 401:
        assert reply.headers["WWW-Authenticate"].startswith("Basic ")
    assert not {'"', "\\"} & set(reply.json["error_description"]), "RFC 6749 section 5.2"


@pytest.mark.parametrize(
    ("way", "headers", "body"),
    [
        ("basic", basic("shop", "secret") | FORM, GRANT),
        ("form", FORM, GRANT + "&client_id=shop&client_secret=secret"),
        ("header", {"client_id": "shop", "client_secret": "secret"} | FORM, GRANT),
    ],
)
async def test_only_listed_ways_authenticate(
    provider: Provider, shop: str, way: str, headers: dict[str, str], body: str
) -> None:
    others = frozenset({"basic", "form", "header"}) - {way}
    provider.change(credentials_in=others)
    assert (await provider.fetch("POST", "/token", headers, body)).error == (400, "invalid_request")
    provider.change(credentials_in=frozenset({way}))
    assert (await provider.fetch("POST", "/token", headers, body)).status == 200


async def test_unknown_client_and_wrong_secret_are_reported_alike_at_the_same_cost(
    provider: Provider, shop: str
) -> None:
    replies = []
    for client_id in ("nobody", shop):
        before = provider.hasher.count
        reply = await provider.fetch("POST", "/token", basic(client_id, "wrong") | FORM, GRANT)
        assert provider.hasher.count == before + 1
        replies.append((reply.status, reply.headers, reply.json))
    assert replies[0] == replies[1]


async def test_expired_client_is_refused_like_an_unknown_one_until_renewed(
    provider: Provider, shop: str
) -> None:
    provider.clock.now += 30 * 86400
    reply = await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, GRANT)
    assert reply.error == (401, "invalid_client")
    assert await provider.server.renew_client(shop)
    reply = await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, GRANT)
    assert reply.status == 200


async def test_token_does_not_outlive_its_client(provider: Provider, shop: str) -> None:
    provider.clock.now += 30 * 86400 - 60
    reply = await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, GRANT)
    assert reply.json["expires_in"] == 60


async def test_scope_is_narrowed_to_what_was_asked_for(provider: Provider, shop: str) -> None:
    reply = await provider.fetch(
        "POST", "/token", basic(shop, "secret") | FORM, f"{GRANT}&scope=orders:write+orders:read"
    )
    assert reply.json["scope"] == "orders:write orders:read"


async def test_client_cannot_ask_for_more_than_it_was_registered_with(provider: Provider) -> None:
    await provider.server.register_client(
        client_id="r", client_secret="secret", scopes=["orders:read"]
    )
    reply = await provider.fetch(
        "POST", "/token", basic("r", "secret") | FORM, f"{GRANT}&scope=orders:write"
    )
    assert reply.error == (400, "invalid_scope")


async def test_without_a_default_a_scope_must_be_asked_for(provider: Provider) -> None:
    await provider.server.register_client(
        client_id="w", client_secret="secret", scopes=["orders:write"]
    )
    reply = await provider.fetch("POST", "/token", basic("w", "secret") | FORM, GRANT)
    assert reply.error == (400, "invalid_scope")


async def test_provider_without_scopes_issues_an_empty_one(provider: Provider) -> None:
    provider.change(scopes=(), default_scopes=())
    await provider.server.register_client(client_id="n", client_secret="secret")
    reply = await provider.fetch("POST", "/token", basic("n", "secret") | FORM, GRANT)
    assert (reply.status, reply.json["scope"]) == (200, "")
    reply = await provider.fetch("POST", "/token", basic("n", "secret") | FORM, GRANT + "&scope=a")
    assert reply.error == (400, "invalid_scope")


async def test_sixth_failure_in_ten_minutes_is_429_before_any_hash(
    provider: Provider, shop: str
) -> None:
    wrong, right = basic(shop, "wrong") | FORM, basic(shop, "secret") | FORM
    for _ in range(5):
        assert (await provider.fetch("POST", "/token", wrong, GRANT)).status == 401
    hashes = provider.hasher.count
    provider.clock.now += 100
    for headers in (wrong, right):
        reply = await provider.fetch("POST", "/token", headers, GRANT)
        assert reply.status == 429
        assert reply.headers["Retry-After"] == "500"
    assert provider.hasher.count == hashes
    assert (await provider.fetch("POST", "/token", right, GRANT, source="192.0.2.9")).status == 200
    provider.clock.now += 501
    assert (await provider.fetch("POST", "/token", right, GRANT)).status == 200


async def test_burst_of_guesses_counts_each_of_them(provider: Provider, shop: str) -> None:
    replies = await asyncio.gather(
        *(
            provider.fetch("POST", "/token", basic(shop, f"guess-{number}") | FORM, GRANT)
            for number in range(50)
        )
    )
    assert sorted(reply.status for reply in replies) == [401] * 5 + [429] * 45
    assert provider.hasher.count == 5


async def test_secret_that_was_verified_lately_does_not_wait_for_a_guess(
    provider: Provider, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = basic(shop, "secret") | FORM
    assert (await provider.fetch("POST", "/token", right, GRANT)).status == 200
    verify, begun, may_end = provider.hasher.verify, asyncio.Event(), asyncio.Event()

    async def verify_slowly(*given: Any, **named: Any) -> bool:
        begun.set()
        await may_end.wait()
        return await verify(*given, **named)

    monkeypatch.setattr(provider.hasher, "verify", verify_slowly)
    wrong = basic(shop, "guess") | FORM
    guess = asyncio.create_task(provider.fetch("POST", "/token", wrong, GRANT))
    async with within():
        await begun.wait()
        assert (await provider.fetch("POST", "/token", right, GRANT)).status == 200
    may_end.set()
    assert (await guess).status == 401


async def test_addresses_of_one_network_guess_together(provider: Provider, shop: str) -> None:
    wrong = basic(shop, "wrong") | FORM
    for number in range(5):
        reply = await provider.fetch("POST", "/token", wrong, GRANT, source=f"2001:db8::{number:x}")
        assert reply.status == 401
    reply = await provider.fetch("POST", "/token", wrong, GRANT, source="2001:db8::ffff:1")
    assert reply.status == 429
    reply = await provider.fetch("POST", "/token", wrong, GRANT, source="2001:db8:0:1::1")
    assert reply.status == 401


async def test_name_that_no_client_can_have_takes_up_no_memory(provider: Provider) -> None:
    for number in range(20):
        headers = basic(f"{number}" + "x" * 255, "wrong") | FORM
        assert (await provider.fetch("POST", "/token", headers, GRANT)).error == (
            401,
            "invalid_client",
        )
    assert not [*provider.limiter.failing()]
    assert provider.hasher.count == 0


async def test_success_forgets_the_failures(provider: Provider, shop: str) -> None:
    for _ in range(3):
        for _ in range(4):
            reply = await provider.fetch("POST", "/token", basic(shop, "wrong") | FORM, GRANT)
            assert reply.status == 401
        reply = await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, GRANT)
        assert reply.status == 200


async def test_client_that_asks_often_costs_one_hash_a_minute(
    provider: Provider, shop: str
) -> None:
    for _ in range(10):
        await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, GRANT)
    assert provider.hasher.count == 1
    provider.clock.now += 61
    await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, GRANT)
    assert provider.hasher.count == 2


async def test_rotated_secret_stops_at_once_in_spite_of_the_memo(
    provider: Provider, shop: str
) -> None:
    await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, GRANT)
    await provider.server.rotate_secret(shop, client_secret="new")
    reply = await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, GRANT)
    assert reply.status == 401
    reply = await provider.fetch("POST", "/token", basic(shop, "new") | FORM, GRANT)
    assert reply.status == 200


# Validation.


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_valid_token_is_described(provider: Provider, shop: str, method: str) -> None:
    token = (await provider.issue_token(shop, "secret", None, "x")).access_token
    provider.clock.now += 600
    reply = await provider.fetch(method, "/validate", {"Authorization": f"Bearer {token}"})
    assert reply.status == 200
    assert reply.json == {
        "active": True, "client_id": "shop", "scope": "orders:read", "token_type": "Bearer",
        "expires_in": 3000, "iat": 1_000_000, "exp": 1_003_600,
    }  # fmt: skip
    assert reply.headers["Cache-Control"] == "no-store"


async def test_token_ends_on_the_second(provider: Provider, shop: str) -> None:
    token = (await provider.issue_token(shop, "secret", None, "x")).access_token
    headers = {"Authorization": f"Bearer {token}"}
    provider.clock.now += 3599
    assert (await provider.fetch("GET", "/validate", headers)).json["expires_in"] == 1
    provider.clock.now += 1
    reply = await provider.fetch("GET", "/validate", headers)
    assert (reply.status, reply.json["active"], reply.reason) == (401, False, "expired")


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ([], 401, None),
        ([("Authorization", "Basic eDp5")], 401, None),
        ([("Authorization", "Bearer unknown")], 401, "invalid_token"),
        ([("Authorization", "Bearer a b")], 400, "invalid_request"),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], 400, "invalid_request"),
    ],
)
async def test_invalid_token_is_not_active_and_challenged(
    provider: Provider, headers: list[tuple[str, str]], status: int, error: str | None
) -> None:
    reply = await provider.fetch("GET", "/validate", headers)
    assert (reply.status, reply.json["active"], reply.json.get("error")) == (status, False, error)
    challenge = reply.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="gateway"')
    assert (f'error="{error}"' in challenge) is (error is not None)


# All of them.


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/token", "POST"),
        ("PUT", "/createClient", "POST"),
        ("DELETE", "/validate", "GET, HEAD, POST"),
    ],
)
async def test_other_methods_are_405(
    provider: Provider, method: str, path: str, allow: str
) -> None:
    reply = await provider.fetch(method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, allow)


async def test_store_outage_is_503_everywhere_and_never_a_verdict(
    provider: Provider, shop: str, tmp_path: Path
) -> None:
    break_store(tmp_path / "gateway.db")
    for path, headers in (
        ("/createClient", REGISTER | {"client_id": "new"}),
        ("/token", basic(shop, "secret") | {"grant_type": "client_credentials"}),
        ("/validate", {"Authorization": "Bearer unknown"}),
    ):
        reply = await provider.fetch("POST", path, headers)
        assert reply.status == 503, path
        assert reply.json["error"] == "temporarily_unavailable"
        assert reply.headers["Retry-After"] == "1"


async def test_outcomes_are_counted(provider: Provider, shop: str) -> None:
    await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, GRANT)
    await provider.fetch("POST", "/token", basic(shop, "wrong") | FORM, GRANT)
    text = provider.metrics.render().decode()
    assert 'gateway_tokens_issued_total{grant="client_credentials"} 1.0' in text
    assert 'gateway_token_errors_total{error="invalid_client"} 1.0' in text
