"""Clients that prove who they are without a secret: by a key or by a certificate."""

from __future__ import annotations

import base64
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, Key
from support.jose_values import (
    ASSERTION_TYPE,
    Certificate,
    jwks,
    make_assertion,
    make_certificate,
    make_key,
)
from support.provider import FORM, Provider, Reply, basic

from gateway.oauth.binding.certificates import read_certificate_header
from gateway.oauth.client_metadata import ClientMetadata, read_metadata
from gateway.oauth.distinguished_names import name_of, parse_name
from gateway.oauth.errors import InvalidClientMetadataError
from gateway.oauth.jose import sign_jwt

ISSUER = "http://gateway.test"
KEY = make_key()


@pytest.fixture
async def signer(provider: Provider) -> str:
    """A client that signs its assertions with `KEY`."""
    metadata = ClientMetadata(token_endpoint_auth_method="private_key_jwt", jwks=jwks(KEY))
    registered = await provider.server.register_client(client_id="signer", metadata=metadata)
    assert registered.client_secret == ""
    return "signer"


async def request_token(provider: Provider, assertion: str, **form: str) -> Reply:
    parameters = {
        "grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    } | form  # fmt: skip
    return await provider.fetch("POST", "/token", FORM, urlencode(parameters))


@pytest.mark.parametrize(
    "audience", [ISSUER, f"{ISSUER}/token", [ISSUER], ["https://elsewhere.example", ISSUER]]
)
async def test_signed_assertion_authenticates(
    provider: Provider, signer: str, audience: Any
) -> None:
    assertion = make_assertion(KEY, signer, audience, provider.clock.now)
    reply = await request_token(provider, assertion, client_id=signer)
    assert reply.status == 200
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.client_id == signer


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256", "PS256"])
async def test_keys_of_several_kinds_are_taken(provider: Provider, algorithm: str) -> None:
    key = make_key("RS256" if algorithm == "PS256" else algorithm)
    metadata = ClientMetadata(token_endpoint_auth_method="private_key_jwt", jwks=jwks(KEY, key))
    await provider.server.register_client(client_id="c", metadata=metadata)
    assertion = make_assertion(key, "c", ISSUER, provider.clock.now, alg=algorithm)
    assert (await request_token(provider, assertion)).status == 200


@pytest.mark.parametrize(
    ("typ", "status"),
    [
        ("JWT", 200), ("client-authentication+jwt", 200),
        ("application/client-authentication+jwt", 200), ("at+jwt", 401), ("dpop+jwt", 401),
        ("logout+jwt", 401),
    ],
)  # fmt: skip
async def test_jwt_of_another_kind_is_no_assertion(
    provider: Provider, signer: str, typ: Any, status: int
) -> None:
    now = int(provider.clock.now)
    claims = {
        "iss": signer, "sub": signer, "aud": ISSUER, "jti": "j", "exp": now + 60, "iat": now,
    }  # fmt: skip
    assertion = sign_jwt({"alg": "ES256", "kid": KEY.kid, "typ": typ}, claims, KEY)
    assert (await request_token(provider, assertion)).status == status


async def test_assertion_is_good_once(provider: Provider, signer: str) -> None:
    assertion = make_assertion(KEY, signer, ISSUER, provider.clock.now)
    assert (await request_token(provider, assertion)).status == 200
    assert (await request_token(provider, assertion)).error == (401, "invalid_client")
    second = make_assertion(KEY, signer, ISSUER, provider.clock.now, jti="another")
    assert (await request_token(provider, second)).status == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://elsewhere.example"}, {"aud": None}, {"aud": f"{ISSUER}/"},
        {"iss": "other"}, {"iss": None}, {"jti": None}, {"jti": ""}, {"jti": "x" * 513},
        {"exp": None}, {"exp": "soon"}, {"exp": 1_000_000 - 31}, {"exp": 1_000_000 + 3631},
        {"nbf": "soon"}, {"iat": 1e15},
        {"exp": True}, {"nbf": 1_000_000 + 31}, {"iat": 1_000_000 + 31},
    ],
)  # fmt: skip
async def test_assertion_that_says_something_else_is_refused(
    provider: Provider, signer: str, claims: dict[str, Any]
) -> None:
    assertion = make_assertion(KEY, signer, ISSUER, provider.clock.now, **claims)
    assert (await request_token(provider, assertion)).error == (401, "invalid_client")


def _forged(kind: str, now: float) -> str:
    good = make_assertion(KEY, "signer", ISSUER, now)
    head, claims, _ = good.split(".")
    if kind == "another key":
        return make_assertion(make_key(), "signer", ISSUER, now)
    if kind == "another key, same id":
        other = make_key()
        return sign_jwt({"alg": "ES256", "kid": KEY.kid}, {"sub": "signer"}, other)
    if kind == "no algorithm":
        none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
        return f"{none}.{claims}."
    if kind == "public key as a secret":
        return _hs256(claims)
    return {"no signature": f"{head}.{claims}.", "cut": good[:-4], "text": "x.y.z"}[kind]


def _hs256(claims: str) -> str:
    assert isinstance(KEY, ECKey)
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()
    code = hmac.digest(KEY.as_pem(private=False), f"{head}.{claims}".encode(), "sha256")
    return f"{head}.{claims}.{base64.urlsafe_b64encode(code).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "kind",
    ["another key", "another key, same id", "no algorithm", "no signature", "cut", "text",
     "public key as a secret"],
)  # fmt: skip
async def test_forged_assertion_is_refused(provider: Provider, signer: str, kind: str) -> None:
    reply = await request_token(provider, _forged(kind, provider.clock.now))
    assert reply.error == (401, "invalid_client")


async def test_client_that_signs_has_no_other_way_in(provider: Provider, signer: str) -> None:
    grant = "grant_type=client_credentials"
    for headers, body in (
        (basic(signer, "") | FORM, grant),
        (basic(signer, "secret") | FORM, grant),
        (FORM, f"{grant}&client_id={signer}"),
        (FORM, f"{grant}&client_id={signer}&client_secret="),
    ):
        assert (await provider.fetch("POST", "/token", headers, body)).error[0] == 401
    assertion = make_assertion(KEY, signer, ISSUER, provider.clock.now)
    body = f"{grant}&client_assertion_type={quote(ASSERTION_TYPE)}&client_assertion={assertion}"
    reply = await provider.fetch("POST", "/token", basic(signer, "x") | FORM, body)
    assert reply.error == (400, "invalid_request"), "two ways at once"
    assert (await request_token(provider, assertion, client_id="x")).error == (
        400,
        "invalid_request",
    )
    reply = await request_token(provider, assertion, client_assertion_type="urn:other")
    assert reply.error == (400, "invalid_request")


async def test_client_with_a_secret_cannot_sign_instead(provider: Provider) -> None:
    await provider.server.register_client(
        client_id="s", client_secret="secret", metadata=ClientMetadata(jwks=jwks(KEY))
    )
    assertion = make_assertion(KEY, "s", ISSUER, provider.clock.now)
    assert (await request_token(provider, assertion)).error == (401, "invalid_client")


async def test_failed_assertions_are_limited_like_guesses(provider: Provider, signer: str) -> None:
    for number in range(5):
        bad = make_assertion(make_key(), signer, ISSUER, provider.clock.now + number)
        assert (await request_token(provider, bad)).status == 401
    good = make_assertion(KEY, signer, ISSUER, provider.clock.now)
    assert (await request_token(provider, good)).status == 429


@asynccontextmanager
async def serve_keys(*keys: Key) -> AsyncIterator[tuple[str, list[Key], list[str]]]:
    """A JWK set on a real socket: its URL, its keys, and the requests for it."""
    published, requests = list(keys), []

    async def respond(request: web.Request) -> web.Response:
        requests.append(request.path)
        return web.json_response(jwks(*published))

    app = web.Application()
    app.router.add_get("/jwks", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/jwks", published, requests
    finally:
        await runner.cleanup()


async def test_keys_behind_a_url_are_fetched_once_and_again_for_a_new_one(
    provider: Provider,
) -> None:
    async with serve_keys(KEY) as (url, published, requests):
        metadata = ClientMetadata(token_endpoint_auth_method="private_key_jwt", jwks_uri=url)
        await provider.server.register_client(client_id="linked", metadata=metadata)
        for number in range(3):
            assertion = make_assertion(KEY, "linked", ISSUER, provider.clock.now, jti=f"{number}")
            assert (await request_token(provider, assertion)).status == 200
        assert len(requests) == 1
        new = make_key()
        published.append(new)
        provider.clock.now += 6
        assertion = make_assertion(new, "linked", ISSUER, provider.clock.now)
        assert (await request_token(provider, assertion)).status == 200
        assert len(requests) == 2


async def test_keys_that_cannot_be_had_are_503_and_no_verdict(provider: Provider) -> None:
    metadata = ClientMetadata(
        token_endpoint_auth_method="private_key_jwt", jwks_uri="http://127.0.0.1:9/jwks"
    )
    await provider.server.register_client(client_id="linked", metadata=metadata)
    assertion = make_assertion(KEY, "linked", ISSUER, provider.clock.now)
    assert (await request_token(provider, assertion)).error == (503, "temporarily_unavailable")


# Certificates.


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "billing")


@pytest.mark.parametrize(
    ("name", "value", "is_right"),
    [
        ("tls_client_auth_subject_dn", "O=Tests,CN=billing", True),
        ("tls_client_auth_subject_dn", "CN=billing", False),
        ("tls_client_auth_subject_dn", "o = tests, cn=Billing", True),
        ("tls_client_auth_subject_dn", "2.5.4.10=#0C055465737473,CN=\\62illing", True),
        ("tls_client_auth_subject_dn", "O=Tests+CN=billing", False),
        ("tls_client_auth_san_dns", "BILLING.example", True),
        ("tls_client_auth_san_dns", "example", False),
        ("tls_client_auth_san_uri", "spiffe://tests/billing", True),
        ("tls_client_auth_san_uri", "spiffe://tests/other", False),
        ("tls_client_auth_san_ip", "127.0.0.1", True),
        ("tls_client_auth_san_ip", "127.0.0.2", False),
        ("tls_client_auth_san_email", "billing@tests.example", True),
        ("tls_client_auth_san_email", "other@tests.example", False),
    ],
)
async def test_certificate_authenticates_by_its_name(
    provider: Provider, certificate: Certificate, name: str, value: str, is_right: bool
) -> None:
    metadata = read_metadata({"token_endpoint_auth_method": "tls_client_auth", name: value})
    await provider.server.register_client(client_id="billing", metadata=metadata)
    body = "grant_type=client_credentials&client_id=billing"
    reply = await provider.fetch("POST", "/token", FORM, body, certificate=certificate.der)
    assert reply.status == (200 if is_right else 401)
    assert (await provider.fetch("POST", "/token", FORM, body)).status == 401


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tls_client_auth_subject_dn", "not a name"),
        ("tls_client_auth_subject_dn", ""),
        ("tls_client_auth_subject_dn", "/C=US/O=Example/CN=b"),
        ("tls_client_auth_subject_dn", "CN=b,,C=US"),
        ("tls_client_auth_subject_dn", "CN=b,"),
        ("tls_client_auth_subject_dn", "CN="),
        ("tls_client_auth_subject_dn", "CN=a;b"),
        ("tls_client_auth_subject_dn", "XX=b"),
        ("tls_client_auth_subject_dn", "CN=#zz"),
        ("tls_client_auth_subject_dn", "CN=#160161ff"),
        ("tls_client_auth_subject_dn", "CN=a\\"),
        ("tls_client_auth_san_ip", "10.0.0.300"),
        ("tls_client_auth_san_dns", "a b"),
        ("tls_client_auth_san_uri", "no uri"),
        ("tls_client_auth_san_email", "@"),
    ],
)
async def test_name_that_no_certificate_can_have_is_rejected_at_registration(
    provider: Provider, name: str, value: str
) -> None:
    members = {"token_endpoint_auth_method": "tls_client_auth", name: value}
    with pytest.raises(
        InvalidClientMetadataError, match=name if value else "needs one of|expected"
    ):
        await provider.server.register_client(metadata=read_metadata(members))


@pytest.mark.parametrize(
    "text",
    [
        "CN=b,O=Example,C=US", "cn=b,o=Example,c=us", "CN=b, O=Example, C=US",
        "CN = b , O = Example , C = US", "2.5.4.3=b,O=Example,C=US", "OID.2.5.4.3=b,O=Example,C=US",
        "CN=#130162,O=Example,C=US", "CN=\\62,O=\\45xample,C=US", "CN=b,O=EXAMPLE,C=US",
    ],
)  # fmt: skip
def test_name_is_known_in_each_notation_of_rfc_4514(text: str) -> None:
    oids = NameOID.COUNTRY_NAME, NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME
    parts = zip(oids, ("US", "Example", "b"), strict=True)
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])
    assert name_of(subject) == parse_name(text)


def test_name_with_blanks_signs_numbers_and_addresses_is_known() -> None:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "7"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@b.example"),
            x509.NameAttribute(NameOID.COMMON_NAME, " Müller, \u212a+Co "),
        ]
    )
    text = "CN=\\ Müller\\, \u212a\\+Co\\ ,emailAddress=a@b.example,serialNumber=7"
    assert name_of(subject) == parse_name(text)
    other = text.replace("\u212a", "k")
    assert name_of(subject) != parse_name(other), "the Kelvin sign is no k"


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_a_value_error(text: str) -> None:
    try:
        parse_name(text)
    except ValueError:
        return


@pytest.mark.parametrize("way", ["x5c", "x5t#S256"])
async def test_self_signed_certificate_authenticates_by_itself(
    provider: Provider, certificate: Certificate, tmp_path: Path, way: str
) -> None:
    der = base64.b64encode(certificate.der).decode()
    member = {"x5c": [der]} if way == "x5c" else {"x5t#S256": certificate.thumbprint}
    keys = jwks(KEY)
    keys["keys"][0] |= member
    keys["keys"].insert(0, jwks(KEY)["keys"][0] | {"x5c": ["\u00e9"]})
    metadata = ClientMetadata(token_endpoint_auth_method="self_signed_tls_client_auth", jwks=keys)
    await provider.server.register_client(client_id="own", metadata=metadata)
    body = "grant_type=client_credentials&client_id=own"
    reply = await provider.fetch("POST", "/token", FORM, body, certificate=certificate.der)
    assert reply.status == 200
    other = make_certificate(tmp_path, "billing")
    reply = await provider.fetch("POST", "/token", FORM, body, certificate=other.der)
    assert reply.status == 401, "the same name is not the same certificate"


async def test_certificate_does_not_stand_in_for_a_secret(
    provider: Provider, certificate: Certificate
) -> None:
    await provider.server.register_client(client_id="billing", client_secret="secret")
    body = "grant_type=client_credentials&client_id=billing"
    reply = await provider.fetch("POST", "/token", FORM, body, certificate=certificate.der)
    assert reply.error == (401, "invalid_client")


async def test_token_is_bound_to_the_certificate_where_the_client_asks_for_it(
    provider: Provider, certificate: Certificate
) -> None:
    metadata = ClientMetadata(tls_client_certificate_bound_access_tokens=True)
    await provider.server.register_client(
        client_id="bound", client_secret="secret", metadata=metadata
    )
    headers, body = basic("bound", "secret") | FORM, "grant_type=client_credentials"
    reply = await provider.fetch("POST", "/token", headers, body, certificate=certificate.der)
    assert reply.json["token_type"] == "Bearer"
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.claims["cnf"] == {"x5t#S256": certificate.thumbprint}
    reply = await provider.fetch("POST", "/token", headers, body)
    assert reply.error == (400, "invalid_request")


def test_certificate_is_read_from_what_proxies_write(certificate: Certificate) -> None:
    pem = certificate.cert.read_text()
    der64 = base64.b64encode(certificate.der).decode()
    for written in (
        quote(pem), quote(pem, safe=""), f":{der64}:", der64,
        f'By=spiffe://x;Hash=abc;Cert="{quote(pem, safe="")}";Subject="CN=x"',
    ):  # fmt: skip
        assert read_certificate_header(written.encode()) == certificate.der
    reported = f'Cert="{quote(pem, safe="")}"'
    for two in (f"{reported},{reported}", f'Subject="CN=x;Cert=AAAA",{reported}'):
        assert read_certificate_header(two.encode()) is None, "one may be the client's own word"
    for junk in (b"", b"(null)", b"%", b"::", b"AAAA", b"\xff", b"x" * 40_000, quote("x").encode()):
        assert read_certificate_header(junk) is None
