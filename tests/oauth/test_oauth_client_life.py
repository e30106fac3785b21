"""How long a client is known, by which secret, and how it shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.jose_values import make_key, make_proof
from support.provider import FORM, JSON, Provider, Reply, basic

from gateway.oauth.client_metadata import ClientMetadata, metadata_of
from gateway.oauth.jose import JwtError, read_jwt, sign_jwt
from gateway.oauth.limiter import FailedClientLimiter
from gateway.rate_limit import RateLimit

DAY = 86400.0
GRANT = "grant_type=client_credentials"
PUBLIC = ClientMetadata(
    grant_types=("authorization_code", "refresh_token"),
    redirect_uris=("http://127.0.0.1/cb",),
    token_endpoint_auth_method="none",
)


async def request_token(provider: Provider, secret: str = "secret", **more: Any) -> Reply:
    return await provider.fetch("POST", "/token", basic("shop", secret) | FORM, GRANT, **more)


async def expiry(provider: Provider, client_id: str) -> float:
    client = await provider.server.store.clients.get_client(client_id)
    assert client is not None
    assert client.expires_at is not None
    return client.expires_at


# Renewal by use.


@pytest.mark.parametrize(
    ("renewal", "metadata", "is_renewed"),
    [
        ("public", PUBLIC, True), ("public", ClientMetadata(), False), ("none", PUBLIC, False),
        ("all", ClientMetadata(), True), ("all", PUBLIC, True),
    ],
)  # fmt: skip
async def test_client_in_use_is_renewed_where_the_operator_says_so(
    provider: Provider, renewal: str, metadata: ClientMetadata, is_renewed: bool
) -> None:
    provider.change(renew=renewal, grant_types=("client_credentials", *PUBLIC.grant_types))
    secret = "secret" if metadata.uses_secret else None
    await provider.server.register_client(client_id="app", client_secret=secret, metadata=metadata)
    body = f"{GRANT}&client_id=app" + (f"&client_secret={secret}" if secret else "")
    first = await expiry(provider, "app")
    for _ in range(29):
        provider.clock.now += DAY
        await provider.fetch("POST", "/token", FORM, body)
    assert (await expiry(provider, "app") > first) is is_renewed
    provider.clock.now += 2 * DAY
    reply = await provider.fetch("POST", "/token", FORM, body)
    assert (reply.json.get("error") == "invalid_client") is not is_renewed


async def test_client_that_asks_often_is_renewed_rarely(provider: Provider, shop: str) -> None:
    provider.change(renew="all")
    first = await expiry(provider, shop)
    for _ in range(20):
        provider.clock.now += 3600
        await request_token(provider)
    assert await expiry(provider, shop) == first
    provider.clock.now += 5 * 3600
    await request_token(provider)
    assert await expiry(provider, shop) == provider.clock.now + 30 * DAY


async def test_token_is_never_issued_for_no_time(provider: Provider, shop: str) -> None:
    provider.clock.now = await expiry(provider, shop) - 0.5
    reply = await request_token(provider)
    assert reply.status == 400
    assert "expires_in" not in reply.json


# Failures.


async def test_right_secret_of_an_expired_client_is_no_guess(
    provider: Provider, shop: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider.clock.now += 30 * DAY
    wrong = await provider.fetch("POST", "/token", basic("nobody", "x") | FORM, GRANT)
    for _ in range(6):
        reply = await request_token(provider)
        assert (reply.error, reply.reason) == ((401, "invalid_client"), "client_expired")
        assert reply.body == wrong.body, "the caller sees no difference"
    expired = "client 'shop' authenticated correctly, but its registration expired on 1970-02-11"
    assert caplog.text.count(expired) == 1, "the operator sees it, once in a while"
    await provider.server.renew_client(shop)
    assert (await request_token(provider)).status == 200


@pytest.mark.parametrize("action", ["renew", "rotate", "update", "replace"])
async def test_what_an_operator_does_ends_the_lockout(
    provider: Provider, shop: str, action: str
) -> None:
    server, secret = provider.server, "secret"
    for _ in range(5):
        await request_token(provider, "wrong")
    assert (await request_token(provider)).status == 429
    provider.clock.now += 1
    assert (await request_token(provider)).status == 429, "nothing has changed"
    if action == "renew":
        await server.renew_client(shop)
    elif action == "rotate":
        secret = "new"
        await server.rotate_secret(shop, client_secret=secret)
    elif action == "update":
        await server.update_client(shop, client_name="Shop")
    else:
        await server.register_client(client_id=shop, client_secret="secret", replace_existing=True)
    provider.clock.now += 1
    assert (await request_token(provider, secret)).status == 200


async def test_client_that_is_registered_after_it_failed_is_let_in(provider: Provider) -> None:
    for _ in range(5):
        await request_token(provider)
    provider.clock.now += 1
    await provider.server.register_client(client_id="shop", client_secret="secret")
    assert (await request_token(provider)).status == 200


async def test_client_that_is_rejected_is_looked_at_once_in_a_second(
    provider: Provider, shop: str
) -> None:
    for _ in range(5):
        await request_token(provider, "wrong")
    compared = [provider.limiter.state_to_compare(shop, "192.0.2.1") for _ in range(3)]
    assert [state is not None for state in compared] == [True, False, False]


def test_state_of_a_failing_client_goes_along_to_another_process() -> None:
    limiter, other = FailedClientLimiter(), FailedClientLimiter()
    limiter.fail("shop", "a", state="7")
    for failing in limiter.failing():
        other.restore(failing)
    assert other.state_to_compare("shop", "a") == "7"


# Two secrets during rotation.


async def test_old_secret_works_for_the_overlap_and_no_longer(
    provider: Provider, shop: str
) -> None:
    rotated = await provider.server.rotate_secret(shop, client_secret="new", overlap_s=3600)
    assert rotated is not None
    for _ in range(2):
        for secret in ("secret", "new"):
            assert (await request_token(provider, secret)).status == 200
        provider.clock.now += 1800
    assert (await request_token(provider, "secret")).status == 401
    assert (await request_token(provider, "new")).status == 200


async def test_overlap_ends_at_will_and_with_the_next_rotation(
    provider: Provider, shop: str
) -> None:
    server = provider.server
    await server.rotate_secret(shop, client_secret="second", overlap_s=3600)
    await server.rotate_secret(shop, client_secret="third", overlap_s=3600)
    assert (await request_token(provider, "secret")).status == 401, "only one before it"
    assert (await request_token(provider, "second")).status == 200
    assert await server.end_overlap(shop) is not None
    assert (await request_token(provider, "second")).status == 401
    await server.rotate_secret(shop, client_secret="fourth", overlap_s=3600)
    await server.rotate_secret(shop, client_secret="fifth")
    assert (await request_token(provider, "fourth")).status == 401
    assert (await request_token(provider, "fifth")).status == 200
    assert await server.end_overlap("nobody") is None


async def test_overlap_survives_a_change_and_shows_no_secret(provider: Provider, shop: str) -> None:
    await provider.server.rotate_secret(shop, client_secret="new", overlap_s=3600)
    client = await provider.server.update_client(
        shop, metadata=lambda old: replace(old, description="x")
    )
    assert client is not None
    assert (await request_token(provider, "secret")).status == 200
    metadata = metadata_of(client)
    assert "argon2" not in repr(metadata)
    assert "argon2" not in json.dumps(metadata.described())


# How many may be registered.


async def test_open_registration_is_limited_by_network(provider: Provider) -> None:
    provider.change(registration_mode="open", registration_rate_limit=RateLimit(3, 3600.0, 3))
    for number in range(4):
        path = ("/register", "/createClient")[number % 2]
        reply = await provider.fetch("POST", path, JSON, "{}", source="2001:db8::1")
        assert reply.status == (201 if number < 3 else 429)
    assert (*reply.error, reply.reason) == (
        429,
        "too_many_registrations",
        "too_many_registrations",
    )
    assert int(reply.headers["Retry-After"]) > 0
    reply = await provider.fetch("POST", "/register", JSON, "{}", source="2001:db8::2")
    assert reply.status == 429, "the same /64"
    reply = await provider.fetch("POST", "/register", JSON, "{}", source="2001:db8:1::1")
    assert reply.status == 201


# How credentials are shown.


@pytest.mark.parametrize("authorization", ["", "Bearer left-over", "Negotiate abc"])
async def test_form_counts_beside_an_authorization_that_is_no_clients(
    provider: Provider, shop: str, authorization: str
) -> None:
    headers = {"Authorization": authorization} | FORM
    body = f"{GRANT}&client_id={shop}&client_secret="
    assert (await provider.fetch("POST", "/token", headers, body + "secret")).status == 200
    assert (await provider.fetch("POST", "/token", headers, body + "wrong")).status == 401
    alone = await provider.fetch("POST", "/token", headers, GRANT)
    assert alone.error == (401, "invalid_client")


async def test_public_client_may_send_an_empty_secret(provider: Provider, shop: str) -> None:
    provider.change(grant_types=("client_credentials", *PUBLIC.grant_types))
    await provider.server.register_client(client_id="app", metadata=PUBLIC)
    body = "grant_type=authorization_code&code=x&code_verifier=x"
    for headers, form in (
        (basic("app", ""), ""), ({}, "&client_id=app"), ({}, "&client_id=app&client_secret="),
    ):  # fmt: skip
        reply = await provider.fetch("POST", "/token", headers | FORM, body + form)
        assert reply.error == (400, "invalid_grant")
    reply = await provider.fetch("POST", "/token", basic(shop, "") | FORM, GRANT)
    assert reply.error == (401, "invalid_client")


async def test_too_many_parameters_are_reported_as_such(provider: Provider, shop: str) -> None:
    body = "&".join(f"p{number}=1" for number in range(65))
    reply = await provider.fetch("POST", "/token", basic(shop, "secret") | FORM, body)
    assert reply.error == (400, "invalid_request")
    assert "64 parameters" in reply.json["error_description"]


# `/validate` and bound tokens.


async def test_bound_token_is_described_to_who_proves_its_key_and_to_no_other(
    provider: Provider, shop: str
) -> None:
    key, url = make_key(), "http://gateway.test"
    proof = make_proof(key, "POST", f"{url}/token", provider.clock.now)
    made = await provider.fetch(
        "POST", "/token", basic(shop, "secret") | FORM | {"DPoP": proof}, GRANT
    )
    token = made.json["access_token"]
    stolen = await provider.fetch("GET", "/validate", {"Authorization": f"Bearer {token}"})
    assert (stolen.status, stolen.json["active"]) == (401, False)
    for signer, status in ((key, 200), (make_key(), 401)):
        proof = make_proof(signer, "GET", f"{url}/validate", provider.clock.now, token=token)
        headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
        reply = await provider.fetch("GET", "/validate", headers)
        assert (reply.status, reply.json["active"]) == (status, status == 200)
    plain = (await request_token(provider)).json["access_token"]
    reply = await provider.fetch("GET", "/validate", {"Authorization": f"DPoP {plain}"})
    assert reply.status == 401


async def test_certificate_bound_token_is_described_with_its_certificate(
    provider: Provider,
) -> None:
    await provider.server.register_client(
        client_id="shop", client_secret="secret",
        metadata=ClientMetadata(tls_client_certificate_bound_access_tokens=True),
    )  # fmt: skip
    made = await request_token(provider, certificate=b"\x30one")
    bearer = {"Authorization": f"Bearer {made.json['access_token']}"}
    for certificate, status in ((b"\x30one", 200), (b"\x30other", 401), (None, 401)):
        reply = await provider.fetch("GET", "/validate", bearer, certificate=certificate)
        assert reply.status == status


async def test_jwt_may_be_as_large_as_a_head(provider: Provider) -> None:
    key = make_key()
    large = sign_jwt({"alg": "ES256"}, {"sub": "x" * 20_000}, key)
    assert read_jwt(large).text("sub")
    with pytest.raises(JwtError):
        read_jwt(sign_jwt({"alg": "ES256"}, {"sub": "x" * 30_000}, key))
