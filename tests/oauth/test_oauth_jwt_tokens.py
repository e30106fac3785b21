"""Access tokens that are JWTs (RFC 9068), the keys that sign them, and their revocation."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from support import settings
from support.provider import FORM, SEAL, Provider, basic

from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.errors import TemporarilyUnavailableError
from gateway.oauth.jose import Jwt, JwtError, read_jwt, read_public_keys, verify_jwt
from gateway.oauth.keys.sealing import Seal, SealError
from gateway.oauth.keys.signing import SIGNING_KEY, SigningAlgorithm, SigningKeys, SigningPolicy
from gateway.oauth.models import RecordStore
from gateway.oauth.policy import ProtectedResource
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.store import SqliteStore

DAY = 86400.0
GRANT = "grant_type=client_credentials"


@pytest.fixture(autouse=True)
async def shop(provider: Provider) -> None:
    await provider.server.register_client(
        client_id="shop", client_secret="secret", metadata=ClientMetadata(access_token_format="jwt")
    )


async def request_token(provider: Provider, body: str = GRANT, client_id: str = "shop") -> str:
    reply = await provider.fetch("POST", "/token", basic(client_id, "secret") | FORM, body)
    assert reply.status == 200, reply.json
    token: str = reply.json["access_token"]
    return token


async def published(provider: Provider) -> Any:
    return (await provider.fetch("GET", "/jwks.json")).json


async def verified(provider: Provider, token: str) -> Jwt:
    return verify_jwt(token, read_public_keys(await published(provider)), ["ES256"])


async def test_jwt_says_what_rfc_9068_asks_for(provider: Provider) -> None:
    jwt = await verified(provider, await request_token(provider))
    assert jwt.header["typ"] == "at+jwt"
    assert jwt.header["alg"] == "ES256"
    assert jwt.header["kid"] == (await published(provider))["keys"][0]["kid"]
    claims = dict(jwt.claims)
    assert len(claims.pop("jti")) >= 21, "128 random bits"
    assert claims == {
        "iss": "http://gateway.test", "aud": "http://gateway.test", "sub": "shop",
        "client_id": "shop", "scope": "orders:read", "iat": 1_000_000, "exp": 1_003_600,
    }  # fmt: skip


async def test_jwt_is_for_the_resources_that_were_asked_for(provider: Provider) -> None:
    provider.change(audiences=("urn:a", "urn:b"))
    jwt = await verified(provider, await request_token(provider, f"{GRANT}&resource=urn:a"))
    assert jwt.claims["aud"] == "urn:a"
    body = f"{GRANT}&resource=urn:a&resource=urn:b"
    assert (await verified(provider, await request_token(provider, body))).audience == (
        "urn:a", "urn:b",
    )  # fmt: skip


async def test_format_is_the_clients_else_the_routes_else_the_providers(
    provider: Provider,
) -> None:
    orders = ProtectedResource("/orders", audiences=("urn:orders",), token_format="jwt")
    provider.change(resources=(orders,))
    await provider.server.register_client(client_id="plain", client_secret="secret")
    await provider.server.register_client(
        client_id="opaque", client_secret="secret",
        metadata=ClientMetadata(access_token_format="opaque"),
    )  # fmt: skip

    async def is_jwt(client_id: str, body: str = GRANT) -> bool:
        return (await request_token(provider, body, client_id)).count(".") == 2

    for target in ("urn:orders", "http://gateway.test/orders"):
        body = f"{GRANT}&resource={target}"
        assert await is_jwt("plain", body)
        assert not await is_jwt("opaque", body)
    assert not await is_jwt("plain")
    provider.change(token_format="jwt")
    assert await is_jwt("plain")
    assert not await is_jwt("opaque")


async def test_jwt_is_validated_introspected_and_revoked_like_any_token(
    provider: Provider,
) -> None:
    token = await request_token(provider)
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await provider.fetch("GET", "/validate", bearer)).json["client_id"] == "shop"
    caller = basic("shop", "secret") | FORM
    described = (await provider.fetch("POST", "/introspect", caller, f"token={token}")).json
    assert described["jti"] == read_jwt(token).claims["jti"]
    assert (await provider.fetch("POST", "/revoke", caller, f"token={token}")).status == 200
    assert (await provider.fetch("GET", "/validate", bearer)).status == 401
    reply = await provider.fetch("POST", "/introspect", caller, f"token={token}")
    assert reply.json == {"active": False}


async def test_jwts_of_a_deleted_client_stop(provider: Provider) -> None:
    token = await request_token(provider)
    await provider.server.store.clients.delete_client("shop")
    assert await provider.server.inspect_token(token) is None


async def test_altered_jwt_is_unknown(provider: Provider) -> None:
    token = await request_token(provider)
    head, claims, signature = token.split(".")
    for altered in (f"{head}.{claims}.{signature[:-2]}AA", f"{head}.{claims}.", token + "="):
        reply = await provider.fetch("GET", "/validate", {"Authorization": f"Bearer {altered}"})
        assert reply.status == 401


async def test_bound_jwt_says_what_it_is_bound_to(provider: Provider) -> None:
    await provider.server.update_client(
        "shop",
        metadata=lambda _: ClientMetadata(
            access_token_format="jwt", tls_client_certificate_bound_access_tokens=True
        ),
    )
    reply = await provider.fetch(
        "POST", "/token", basic("shop", "secret") | FORM, GRANT, certificate=b"\x30cert"
    )
    jwt = await verified(provider, reply.json["access_token"])
    assert list(jwt.claims["cnf"]) == ["x5t#S256"]


# Keys.


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_keys_rotate_and_stay_published_while_their_tokens_live(
    provider: Provider, algorithm: SigningAlgorithm
) -> None:
    clock = provider.clock
    policy = SigningPolicy(algorithm, rotate_every_s=10 * DAY, token_ttl_s=DAY)
    keys = SigningKeys(provider.store.records, SEAL, policy, wall_clock=clock)
    clock.now = 100 * 10 * DAY
    first = await keys.sign_access_token({"n": 1})
    assert len((await keys.jwks())["keys"]) == 1
    clock.now += 9.5 * DAY
    ahead = (await keys.jwks())["keys"]
    assert len(ahead) == 2, "the next key is published before it signs"
    assert read_jwt(await keys.sign_access_token({})).key_id == read_jwt(first).key_id
    clock.now += DAY
    second = await keys.sign_access_token({"n": 2})
    assert read_jwt(second).key_id == ahead[1]["kid"]
    for token in (first, second):
        assert verify_jwt(token, read_public_keys(await keys.jwks()), [algorithm])
    clock.now += 2 * DAY
    with pytest.raises(JwtError):
        verify_jwt(first, read_public_keys(await keys.jwks()), [algorithm])
    assert verify_jwt(second, read_public_keys(await keys.jwks()), [algorithm])


async def test_all_processes_sign_with_one_key(provider: Provider, tmp_path: Path) -> None:
    stores = [
        SqliteStore(SqliteFile(tmp_path / "gateway.db", wall_clock=provider.clock))
        for _ in range(3)
    ]
    try:
        each = [SigningKeys(store.records, SEAL, settings.SIGNING, wall_clock=provider.clock)
                for store in stores]  # fmt: skip
        tokens = await asyncio.gather(*(keys.sign_access_token({}) for keys in each * 3))
        assert len({read_jwt(token).key_id for token in tokens}) == 1
    finally:
        for store in stores:
            await store.close()


async def test_private_keys_are_not_in_the_store_in_clear(
    provider: Provider, tmp_path: Path
) -> None:
    await request_token(provider)
    (record,) = await provider.store.records.list_records(SIGNING_KEY)
    assert b'"d"' not in record.value
    assert "sealed" not in repr(record)


async def test_key_sealed_with_another_secret_is_reported_and_nothing_is_signed(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    await request_token(provider)
    other = SigningKeys(
        provider.store.records,
        Seal(lambda: b"another secret"),
        settings.SIGNING,
        wall_clock=provider.clock,
    )
    with caplog.at_level(logging.ERROR), pytest.raises(TemporarilyUnavailableError):
        await other.sign_access_token({})
    assert "provider.seal_key" in caplog.text
    assert (await other.jwks())["keys"], "what others signed can still be verified"


async def test_seal_opens_only_what_it_closed_under_this_name() -> None:
    sealed = SEAL.close(b"value", name="a")
    assert SEAL.open(sealed, name="a") == b"value"
    assert b"value" not in sealed
    for changed, name in ((sealed, "b"), (sealed[:-1] + b"\0", "a"), (b"", "a")):
        with pytest.raises(SealError):
            SEAL.open(changed, name=name)


async def test_key_set_is_read_from_the_store_only_now_and_then(provider: Provider) -> None:
    store = _CountingRecords(provider.store.records)
    keys = SigningKeys(store, SEAL, settings.SIGNING, wall_clock=provider.clock)
    for _ in range(5):
        await keys.jwks()
    assert store.lists == 1
    provider.clock.now += 11
    await keys.jwks()
    assert store.lists == 2


class _CountingRecords:
    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self.lists = 0

    def __getattr__(self, name: str) -> Any:
        if name == "list_records":
            self.lists += 1
        return getattr(self._store, name)
