"""DPoP at the token endpoint, and what makes a proof hold (RFC 9449)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from support.jose_values import make_key, make_proof
from support.provider import FORM, Provider, Reply, basic

from gateway.oauth.binding.dpop import DpopError, read_dpop
from gateway.oauth.client_metadata import ClientMetadata

URL = "http://gateway.test/token"
KEY = make_key()
GRANT = "grant_type=client_credentials"


@pytest.fixture(autouse=True)
async def shop(provider: Provider) -> None:
    await provider.server.register_client(client_id="shop", client_secret="secret")


async def request_token(provider: Provider, *proofs: str) -> Reply:
    headers = [*basic("shop", "secret").items(), *FORM.items(), *(("DPoP", p) for p in proofs)]
    return await provider.fetch("POST", "/token", headers, GRANT)


async def test_token_is_bound_to_the_key_of_the_proof(provider: Provider) -> None:
    reply = await request_token(provider, make_proof(KEY, "POST", URL, provider.clock.now))
    assert (reply.status, reply.json["token_type"]) == (200, "DPoP")
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.claims["cnf"] == {"jkt": KEY.thumbprint()}
    reply = await provider.fetch(
        "POST", "/introspect", basic("shop", "secret") | FORM,
        f"token={reply.json['access_token']}",
    )  # fmt: skip
    assert reply.json["token_type"] == "DPoP"
    assert reply.json["cnf"] == {"jkt": KEY.thumbprint()}


async def test_proof_is_good_once(provider: Provider) -> None:
    proof = make_proof(KEY, "POST", URL, provider.clock.now)
    assert (await request_token(provider, proof)).status == 200
    assert (await request_token(provider, proof)).error == (400, "invalid_dpop_proof")


@pytest.mark.parametrize(
    "changes",
    [
        {"htm": "GET"}, {"htm": "post"}, {"htm": None}, {"htu": "http://evil.test/token"},
        {"htu": "http://gateway.test/other"}, {"htu": "https://gateway.test/token"},
        {"htu": "http://gateway.test:8080/token"}, {"htu": "http://u@gateway.test/token"},
        {"htu": None}, {"htu": "http://[/token"}, {"jti": None}, {"jti": "x" * 257},
        {"iat": None}, {"iat": "now"}, {"iat": 1_000_000 - 61}, {"iat": 1_000_000 + 61},
        {"header": {"typ": "JWT"}}, {"header": {"jwk": {"kty": "oct", "k": "AAAA"}}},
        {"header": {"jwk": KEY.as_dict(private=True)}}, {"header": {"jwk": {}}},
        {"header": {"jwk": make_key().as_dict(private=False)}},
    ],
)  # fmt: skip
async def test_proof_that_does_not_hold_is_refused(
    provider: Provider, changes: dict[str, Any]
) -> None:
    proof = make_proof(KEY, "POST", URL, provider.clock.now, **changes)
    assert (await request_token(provider, proof)).error == (400, "invalid_dpop_proof")


async def test_two_proofs_or_none_that_can_be_read_are_refused(provider: Provider) -> None:
    proofs = [make_proof(KEY, "POST", URL, provider.clock.now, jti=jti) for jti in "ab"]
    assert (await request_token(provider, *proofs)).error == (400, "invalid_dpop_proof")
    _, claims, signature = proofs[0].split(".")
    jwk, kids = KEY.as_dict(private=False), list[Any]([[], {}, 1])
    headers = [{"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk, "kid": kid} for kid in kids]
    forged = [
        f"{base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip('=')}"
        f".{claims}.{signature}"
        for header in headers
    ]
    for junk in ("", "x", "a.b.c", "eyJ.e.e", *forged):
        assert (await request_token(provider, junk)).error == (400, "invalid_dpop_proof")


@pytest.mark.parametrize("htu", ["http://GATEWAY.test/token?x#y", "HTTP://gateway.test:80/token"])
async def test_url_of_a_proof_is_compared_as_a_url(provider: Provider, htu: str) -> None:
    proof = make_proof(KEY, "POST", htu, provider.clock.now)
    assert (await request_token(provider, proof)).status == 200


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
async def test_keys_of_several_kinds_are_taken(provider: Provider, algorithm: str) -> None:
    proof = make_proof(make_key(algorithm), "POST", URL, provider.clock.now, alg=algorithm)
    assert (await request_token(provider, proof)).status == 200


async def test_client_that_binds_its_tokens_gets_none_without_a_proof(provider: Provider) -> None:
    await provider.server.update_client(
        "shop", metadata=lambda _: ClientMetadata(dpop_bound_access_tokens=True)
    )
    assert (await request_token(provider)).error == (400, "invalid_dpop_proof")
    proof = make_proof(KEY, "POST", URL, provider.clock.now)
    assert (await request_token(provider, proof)).status == 200


async def test_nonce_is_asked_for_where_the_operator_wants_one(provider: Provider) -> None:
    provider.nonces = True
    provider.change()
    now = provider.clock.now
    reply = await request_token(provider, make_proof(KEY, "POST", URL, now))
    assert reply.error == (400, "use_dpop_nonce")
    nonce = reply.headers["DPoP-Nonce"]
    reply = await request_token(provider, make_proof(KEY, "POST", URL, now, nonce=nonce))
    assert reply.status == 200
    assert reply.headers["DPoP-Nonce"], "the next one comes along"
    forged = nonce[:-2] + ("AA" if nonce[-2:] != "AA" else "BB")
    for bad in (forged, "", "x", nonce[:11]):
        proof = make_proof(KEY, "POST", URL, now, nonce=bad, jti=f"n{bad}")
        assert (await request_token(provider, proof)).error == (400, "use_dpop_nonce")
    provider.clock.now += 301
    proof = make_proof(KEY, "POST", URL, provider.clock.now, nonce=nonce, jti="late")
    assert (await request_token(provider, proof)).error == (400, "use_dpop_nonce")


def test_proof_with_a_token_holds_once_for_this_token_key_and_request(provider: Provider) -> None:
    now, url = provider.clock.now, "http://gateway.test/api/x"

    def verify(
        proof: str, *, token: str = "t0ken", path: str = "/api/x", key: str = KEY.thumbprint()
    ) -> None:
        provider.proofs.verify_with_token(
            [(b"Authorization", f"DPoP {token}".encode()), (b"DPoP", proof.encode())],
            method="GET", origins=("http://gateway.test",), path=path, key=key,
        )  # fmt: skip

    proof = make_proof(KEY, "GET", url, now, token="t0ken")
    verify(proof)
    for bad in (
        proof,
        make_proof(KEY, "GET", url, now, token="other", jti="1"),
        make_proof(KEY, "GET", url, now, jti="2"),
        make_proof(make_key(), "GET", url, now, token="t0ken", jti="3"),
        make_proof(KEY, "POST", url, now, token="t0ken", jti="4"),
    ):
        with pytest.raises(DpopError):
            verify(bad)
    with pytest.raises(DpopError):
        verify(make_proof(KEY, "GET", url, now, token="t0ken", jti="5"), path="/api/y")
    with pytest.raises(DpopError):  # the `jkt` in a token of another issuer may be any text
        verify(make_proof(KEY, "GET", url, now, token="t0ken", jti="7"), key="\u00e9")
    verify(make_proof(KEY, "GET", "http://gateway.test/%61pi/x", now, token="t0ken", jti="6"))


@pytest.mark.parametrize(
    ("values", "token"),
    [([b"DPoP abc"], b"abc"), ([b"dpop  a.b=="], b"a.b=="), ([b"DPoP"], None), ([], None),
     ([b"Bearer abc"], None), ([b"DPoP a b"], None), ([b"DPoP a", b"DPoP a"], None)],
)  # fmt: skip
def test_token_of_the_dpop_scheme_is_read(values: list[bytes], token: bytes | None) -> None:
    assert read_dpop(values) == token
