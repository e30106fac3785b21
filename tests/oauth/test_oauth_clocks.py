"""Replicas, clients and other issuers whose clocks are apart, in both directions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, Key
from support import settings
from support.jose_values import ASSERTION_TYPE, jwks, make_assertion, make_key, make_proof
from support.provider import FORM, Clock, Provider, Reply, basic
from support.refreshing import allow, begin, is_good, refresh, refresh_token, register
from support.servers.issuer import Issuer, issuer

from gateway.clock import CLOCK_SKEW_S, has_come, is_over, is_within
from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.jose import read_jwt, sign_jwt
from gateway.oauth.token_cache import TokenCache

CORP = "https://login.corp.example"
APARTS = [-3600.0, -9.0, -2.0, -0.002, 0.0, 0.002, 2.0, 9.0, 3600.0]
"""How far the clock of the second replica is ahead of the first's, in seconds."""


def replica(provider: Provider, ahead_s: float) -> Provider:
    """Another process on the same store, whose clock is another one."""
    return Provider(
        provider.store, provider.policy, clock=Clock(provider.clock.now + ahead_s),
        nonces=provider.nonces,
    )  # fmt: skip


@given(st.floats(0, 1e10), st.floats(-CLOCK_SKEW_S + 0.1, CLOCK_SKEW_S - 0.1))
def test_moment_that_is_now_for_another_clock_is_now_for_ours(now: float, apart: float) -> None:
    assert has_come(now + apart, now)
    assert has_come(None, now)
    assert not is_over(now + apart, now)
    assert is_within(now + abs(apart), now, 1.0)
    assert not has_come(now + CLOCK_SKEW_S + 1, now)
    assert is_over(now - CLOCK_SKEW_S - 1, now)
    assert not is_within(now - 2, now, 1.0)


@pytest.mark.parametrize("ahead_s", APARTS)
async def test_refresh_token_used_at_two_replicas_has_one_successor(
    provider: Provider, ahead_s: float
) -> None:
    allow(provider, reuse_grace_s=10.0)
    await register(provider)
    other = replica(provider, ahead_s)
    first = refresh_token(await begin(provider.server))
    replies: list[Reply] = await asyncio.gather(
        *(refresh(one, first) for one in (provider, other, provider, other))
    )
    assert [reply.status for reply in replies] == [200] * 4
    (successor,) = {reply.json["refresh_token"] for reply in replies}
    # In turns from here on, so that each sees what the other has written.
    for one in (other, provider, other):
        again = await refresh(one, successor)
        assert again.status == 200
        repeated = await refresh(provider if one is other else other, successor)
        assert repeated.json["refresh_token"] == again.json["refresh_token"]
        successor = again.json["refresh_token"]


async def test_reuse_is_still_detected_by_a_replica_whose_clock_is_behind(
    provider: Provider,
) -> None:
    allow(provider, reuse_grace_s=10.0)
    await register(provider)
    other = replica(provider, -5.0)
    first = refresh_token(await begin(provider.server))
    assert (await refresh(provider, first)).status == 200
    provider.clock.now += 11.0  # that of the store
    assert (await refresh(other, first)).reason == "refresh_token_reused"


@pytest.mark.parametrize("apart_s", [-9.0, -2.0, -0.002, 9.0])
async def test_repeated_refresh_has_the_same_successor_where_the_clock_of_the_store_steps(
    provider: Provider, apart_s: float
) -> None:
    """A replica of Redis has taken over, or the host's clock was set."""
    allow(provider, reuse_grace_s=10.0)
    await register(provider)
    first = refresh_token(await begin(provider.server))
    rotated = await refresh(provider, first)
    provider.clock.now += apart_s
    repeated = await refresh(provider, first)
    assert repeated.status == 200
    assert repeated.json["refresh_token"] == rotated.json["refresh_token"]


async def test_access_token_stays_with_its_family_where_a_clock_is_ahead(
    provider: Provider,
) -> None:
    allow(provider)
    await register(provider)
    issued = await begin(provider.server)
    provider.clock.now = issued.token.expires_at - 1.0
    other = replica(provider, 5.0)
    following = await refresh(other, refresh_token(issued))
    family = await provider.server.refresh_tokens.find_family(following.json["refresh_token"])
    assert family is not None
    assert issued.token.digest in {digest for digest, _ in family.family.access_tokens}
    assert await is_good(provider, following.json["access_token"])


async def test_proof_is_good_once_where_a_clock_is_behind(provider: Provider) -> None:
    await provider.server.register_client(client_id="shop", client_secret="secret")
    proof = make_proof(make_key(), "POST", "http://gateway.test/token", provider.clock.now)
    headers = basic("shop", "secret") | FORM | {"DPoP": proof}
    body = "grant_type=client_credentials"
    assert (await provider.fetch("POST", "/token", headers, body)).status == 200
    # Too old here and in the store, but not there.
    provider.clock.now += 61
    behind = replica(provider, -CLOCK_SKEW_S + 1)
    reply = await behind.fetch("POST", "/token", headers, body)
    assert reply.error == (400, "invalid_dpop_proof")


@pytest.mark.parametrize("ahead_s", [-100.0, -1.2, -0.5, 0.5, 1.2, 100.0])
async def test_nonce_of_another_replica_is_taken(provider: Provider, ahead_s: float) -> None:
    provider.nonces = True
    provider.use(provider.policy)
    await provider.server.register_client(client_id="shop", client_secret="secret")
    nonce = replica(provider, ahead_s).proofs.fresh_nonce()
    proof = make_proof(
        make_key(), "POST", "http://gateway.test/token", provider.clock.now, nonce=nonce
    )
    headers = [*basic("shop", "secret").items(), *FORM.items(), ("DPoP", proof)]
    reply = await provider.fetch("POST", "/token", headers, "grant_type=client_credentials")
    assert reply.status == 200


@pytest.mark.parametrize("ahead_s", [-29.0, -5.0, 0.0, 1.0, 29.0])
@pytest.mark.parametrize("lifetime_s", [60, 3600])
async def test_assertion_of_a_client_whose_clock_is_apart_is_taken_once(
    provider: Provider, ahead_s: float, lifetime_s: int
) -> None:
    key = make_key()
    metadata = ClientMetadata(token_endpoint_auth_method="private_key_jwt", jwks=jwks(key))
    await provider.server.register_client(client_id="signer", metadata=metadata)
    now = int(provider.clock.now + ahead_s)
    assertion = make_assertion(
        key, "signer", "http://gateway.test", now, exp=now + lifetime_s, nbf=now
    )
    form = {
        "grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    }  # fmt: skip
    for status in (200, 401):
        assert (await provider.fetch("POST", "/token", FORM, urlencode(form))).status == status


def make_jwt(
    key: Key, now: float, *, typ: object = "at+jwt", kid: bool = True, **claims: Any
) -> str:
    said = {
        "iss": CORP, "aud": "https://api.example", "client_id": "web", "exp": int(now) + 600,
        "iat": int(now),
    } | claims  # fmt: skip
    header = {"alg": "ES256"} | ({"kid": key.kid} if kid else {}) | ({"typ": typ} if typ else {})
    return sign_jwt(header, said, key)


def without_ids(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


async def validate(provider: Provider, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (await provider.fetch("GET", "/validate", headers)).status


@pytest.fixture
async def corp(provider: Provider) -> AsyncIterator[Issuer]:
    async with issuer(make_key()) as running:
        provider.trust(settings.jwt_issuer("corp", CORP, running.jwks_uri, "https://api.example"))
        yield running


@pytest.mark.parametrize("claim", ["nbf", "exp", "iat"])
@pytest.mark.parametrize(
    "value", ["tomorrow", True, [], {}, None, 1e12, 1.8e15, -1e13, int("9" * 400), "1000000"]
)
async def test_time_that_can_not_be_used_is_not_taken_for_absent(
    provider: Provider, corp: Issuer, claim: str, value: Any
) -> None:
    (key,) = corp.keys
    assert await validate(provider, make_jwt(key, provider.clock.now)) == 200
    assert await validate(provider, make_jwt(key, provider.clock.now, **{claim: value})) == 401


@pytest.mark.parametrize(
    ("typ", "status"),
    [("at+jwt", 200), ("application/at+jwt", 200), ("AT+JWT", 200), ("JWT", 200), (None, 200),
     ("client-authentication+jwt", 401), ("vc+jwt", 401), ("id+jwt", 401), ("x", 401),
     ("application/jwt;x", 401), ("dpop+jwt", 401)],
)  # fmt: skip
async def test_only_jwts_that_may_be_access_tokens_are_taken_for_some(
    provider: Provider, corp: Issuer, typ: object, status: int
) -> None:
    assert await validate(provider, make_jwt(corp.keys[0], provider.clock.now, typ=typ)) == status


async def test_key_without_an_id_that_was_replaced_is_fetched(
    provider: Provider, corp: Issuer
) -> None:
    old, new = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    corp.raw = without_ids(old)
    now = provider.clock.now
    assert await validate(provider, make_jwt(old, now, kid=False, jti="1")) == 200
    corp.raw = without_ids(new)
    provider.clock.now += 6
    assert await validate(provider, make_jwt(new, now, kid=False, jti="2")) == 200
    assert await validate(provider, make_jwt(old, now, kid=False, jti="3")) == 401
    fetched = len(corp.requests)
    for number in range(20):
        strange = make_jwt(make_key(), now, kid=False, jti=f"s{number}")
        assert await validate(provider, strange) == 401
    assert len(corp.requests) == fetched, "not fetched again for every bad signature"


async def test_keys_of_other_kinds_are_not_counted_as_tried(
    provider: Provider, corp: Issuer
) -> None:
    last = ECKey.generate_key("P-256")
    others: list[Key] = [ECKey.generate_key("P-384") for _ in range(12)]
    corp.raw = without_ids(*others, last)
    assert await validate(provider, make_jwt(last, provider.clock.now, kid=False)) == 200


@pytest.mark.parametrize(("ahead_s", "status"), [(2, 200), (29, 200), (31, 401), (None, 200)])
async def test_introspected_token_may_begin_by_the_clock_of_its_issuer(
    provider: Provider, ahead_s: float | None, status: int
) -> None:
    async with issuer() as legacy:
        provider.trust(
            servers=[
                settings.introspection_server(
                    name="legacy", endpoint=legacy.endpoint, client_id="g", client_secret="p"
                )
            ]
        )
        begins = None if ahead_s is None else provider.clock.now + ahead_s
        legacy.tokens["abc"] = {"active": True, "client_id": "erp", "nbf": begins}
        assert await validate(provider, "abc") == status


async def test_token_that_is_valid_later_is_not_remembered_as_invalid(provider: Provider) -> None:
    async with issuer() as legacy:
        provider.trust(
            servers=[
                settings.introspection_server(
                    name="legacy", endpoint=legacy.endpoint, client_id="g", client_secret="p"
                )
            ]
        )
        legacy.tokens["abc"] = {
            "active": True, "client_id": "erp", "nbf": provider.clock.now + 31,
        }  # fmt: skip
        assert await validate(provider, "abc") == 401
        provider.clock.now += 1  # well before the cache of rejections would have forgotten it
        assert await validate(provider, "abc") == 200


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_jwt_that_is_valid_later_is_not_remembered_as_invalid(
    provider: Provider, corp: Issuer, claim: str
) -> None:
    later: dict[str, Any] = {claim: provider.clock.now + 61}
    token = make_jwt(corp.keys[0], provider.clock.now, **later)
    assert await validate(provider, token) == 401
    provider.clock.now += 1
    assert await validate(provider, token) == 200


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0])
async def test_cached_token_ends_where_the_wall_clock_jumps_beyond_its_end(
    provider: Provider, jump_s: float
) -> None:
    await provider.server.register_client(client_id="shop", client_secret="secret")
    issued = await provider.issue_token("shop", "secret", None, "192.0.2.1")
    monotonic, wall = Clock(), Clock(provider.clock.now)
    validator = TokenCache(
        provider.store.tokens, provider.metrics, audience=(provider.policy.issuer,),
        clock=monotonic, wall_clock=wall,
    )  # fmt: skip
    entry = await validator.lookup(issued.access_token)
    assert validator.cached(issued.access_token) is entry
    wall.now += jump_s
    is_live = jump_s < 0
    assert (validator.cached(issued.access_token) is entry) is is_live
    assert validator.is_fresh(entry) is is_live
    monotonic.now += 61
    assert validator.cached(issued.access_token) is None, "a jump back prolongs nothing"


async def test_key_set_of_ours_is_renewed_where_the_wall_clock_goes_back(
    provider: Provider,
) -> None:
    provider.clock.now += 40 * 86400
    await provider.signing_keys.jwks()
    provider.clock.now -= 40 * 86400
    kids = {key["kid"] for key in (await provider.signing_keys.jwks())["keys"]}
    signed = await provider.signing_keys.sign_access_token({"sub": "a"})

    assert read_jwt(signed).key_id in kids
