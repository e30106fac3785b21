"""`/register` (RFC 7591) and the management of what it registered (RFC 7592)."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from support.jose_values import jwks, make_assertion, make_key
from support.provider import FORM, JSON, REGISTER, Provider, Reply, basic

import gateway
from gateway.oauth.authorization.redirects import choose_redirect
from gateway.oauth.client_metadata import REGISTRABLE, ClientMetadata, metadata_of, read_metadata


async def register(provider: Provider, **members: Any) -> Reply:
    return await provider.fetch("POST", "/register", REGISTER | JSON, json.dumps(members))


async def manage(
    provider: Provider, registered: Reply, method: str, token: str | None = None, **members: Any
) -> Reply:
    uri: str = registered.json["registration_client_uri"]
    token = token or registered.json["registration_access_token"]
    return await provider.fetch(
        method, "/register",
        {"Authorization": f"Bearer {token}"} | (JSON if members else {}),
        json.dumps(members) if members else "",
        query=uri.partition("?")[2],
    )  # fmt: skip


async def test_client_is_registered_and_gets_tokens(provider: Provider) -> None:
    reply = await register(provider, client_name="Shop", scope="orders:write", unknown={"x": 1})
    assert (reply.status, reply.headers["Cache-Control"]) == (201, "no-store")
    client_id, secret = reply.json.pop("client_id"), reply.json.pop("client_secret")
    assert len(reply.json.pop("registration_access_token")) >= 43, "256 random bits"
    assert reply.json == {
        "client_name": "Shop",
        "client_id_issued_at": 1_000_000,
        "client_secret_expires_at": 1_000_000 + 30 * 86400,
        "registration_client_uri": f"http://gateway.test/register?client_id={client_id}",
        "grant_types": ["client_credentials"],
        "token_endpoint_auth_method": "client_secret_basic",
        "scope": "orders:write",
    }
    grant = "grant_type=client_credentials&scope=orders:write"
    reply = await provider.fetch("POST", "/token", basic(client_id, secret) | FORM, grant)
    assert reply.status == 200


async def test_id_and_secret_are_never_the_clients_choice(provider: Provider) -> None:
    reply = await register(provider, client_id="admin", client_secret="guess")
    assert reply.json["client_id"] != "admin"
    assert reply.json["client_secret"] != "guess"


async def test_method_of_the_registration_is_the_only_one_that_counts(provider: Provider) -> None:
    for method, way in (("client_secret_basic", "basic"), ("client_secret_post", "form")):
        made = (await register(provider, token_endpoint_auth_method=method)).json
        form = f"&client_id={made['client_id']}&client_secret={made['client_secret']}"
        header = basic(made["client_id"], made["client_secret"])
        for tried, headers, body in (("basic", header, ""), ("form", {}, form)):
            reply = await provider.fetch(
                "POST", "/token", headers | FORM, f"grant_type=client_credentials{body}"
            )
            assert (reply.status == 200) is (tried == way), (method, tried)


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"grant_types": ["password"]}, "invalid_client_metadata"),
        ({"grant_types": []}, "invalid_client_metadata"),
        ({"grant_types": "client_credentials"}, "invalid_client_metadata"),
        ({"scope": "nonsense"}, "invalid_client_metadata"),
        ({"scope": 1}, "invalid_client_metadata"),
        ({"client_name": "x" * 201}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "none"}, "invalid_client_metadata"),
        ({"jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]}}, "invalid_client_metadata"),
        ({"jwks": {"keys": [make_key().as_dict(private=True)]}}, "invalid_client_metadata"),
        ({"jwks": {"keys": "x"}}, "invalid_client_metadata"),
        ({"jwks": {"keys": [{"kty": ["EC"]}]}}, "invalid_client_metadata"),
        ({"jwks_uri": "https://keys.example/jwks"}, "invalid_client_metadata"),
        ({"jwks_uri": "file:///etc/passwd"}, "invalid_client_metadata"),
        ({"audiences": ["https://elsewhere.example"]}, "invalid_client_metadata"),
        ({"description": "x" * 20000}, "invalid_client_metadata"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://app.example/#x"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://app.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["/relative"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://u:p@app.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://evil.example\\.app.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ['https://app.example/"><script>']}, "invalid_redirect_uri"),
        # Letters that are an ASCII one where case is ignored: the Kelvin sign, the long s.
        ({"redirect_uris": ["https://\u212aelvin.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http\u017f://app.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://app.example/\u212a"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://app.example:99999/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://app.example:abc/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://app.example:0/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://*.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://a..example/cb"]}, "invalid_redirect_uri"),
    ],
)
async def test_metadata_that_cannot_be_used_is_refused(
    provider: Provider, members: dict[str, Any], error: str
) -> None:
    reply = await register(provider, **members)
    assert reply.error == (400, error)


async def test_code_grant_without_a_redirect_uri_is_refused(provider: Provider) -> None:
    provider.change(grant_types=("client_credentials", "authorization_code"))
    reply = await register(provider, grant_types=["authorization_code"])
    assert reply.error == (400, "invalid_redirect_uri")
    reply = await register(
        provider,
        grant_types=["authorization_code"],
        redirect_uris=[
            "https://app.example/back",
            "http://127.0.0.1/x",
            "http://[::1]:5/x?a=%20",
            "com.example.app:/back",
        ],
    )
    assert reply.status == 201


async def test_jwks_uri_is_followed_only_where_the_operator_says(provider: Provider) -> None:
    provider.change(client_jwks_uris=("https://keys.example/",))
    reply = await register(provider, jwks_uri="https://keys.example/a.json")
    assert reply.status == 201
    reply = await register(provider, jwks_uri="https://keys.example.evil/a.json")
    assert reply.error == (400, "invalid_client_metadata")


@pytest.mark.parametrize(
    ("headers", "body"), [(JSON, "["), (JSON, "[]"), (FORM, "client_name=x"), ({}, "")]
)
async def test_body_must_be_a_json_object(
    provider: Provider, headers: dict[str, str], body: str
) -> None:
    assert (await provider.fetch("POST", "/register", REGISTER | headers, body)).status == 400


async def test_registration_needs_its_token_here_too(provider: Provider) -> None:
    assert (await provider.fetch("POST", "/register", JSON, "{}")).status == 401
    wrong = {"Authorization": "Bearer wrong"} | JSON
    assert (await provider.fetch("POST", "/register", wrong, "{}")).error == (401, "invalid_token")


async def test_path_is_left_to_applications_where_registration_is_off(provider: Provider) -> None:
    assert "/register" in provider.endpoints.paths
    provider.change(registration_mode="off")
    assert "/register" not in provider.endpoints.paths


async def test_client_reads_its_registration(provider: Provider) -> None:
    made = await register(provider, client_name="Shop", contacts=["ops@shop.example"])
    reply = await manage(provider, made, "GET")
    assert reply.status == 200
    assert "client_secret" not in reply.json, "nobody knows it any more"
    secret_free = {name: value for name, value in made.json.items() if name != "client_secret"}
    assert reply.json == secret_free
    assert reply.json["contacts"] == ["ops@shop.example"]


async def test_client_replaces_its_registration(provider: Provider) -> None:
    key = make_key()
    made = await register(provider, client_name="Shop", contacts=["a@b.c"])
    client_id = made.json["client_id"]
    reply = await manage(
        provider, made, "PUT",
        client_id=client_id, client_secret=made.json["client_secret"], client_name="Shop 2",
        token_endpoint_auth_method="private_key_jwt", jwks=jwks(key),
    )  # fmt: skip
    assert reply.status == 200
    assert reply.json["client_name"] == "Shop 2"
    assert "contacts" not in reply.json, "what is left out is deleted"
    token = made.json["registration_access_token"]
    assert reply.json["registration_access_token"] == token, "RFC 7592 section 3"
    client = await provider.server.store.clients.get_client(client_id)
    assert client is not None
    assert metadata_of(client).token_endpoint_auth_method == "private_key_jwt"
    assert (await manage(provider, made, "GET")).status == 200, "the token is still good"


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"client_id": "other"}, "invalid_request"),
        ({}, "invalid_request"),
        ({"client_secret": "wrong"}, "invalid_request"),
        ({"scope": "orders:read orders:write"}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials", "authorization_code"],
          "redirect_uris": ["https://a.example/"]}, "invalid_client_metadata"),
    ],
)  # fmt: skip
async def test_update_that_is_not_the_clients_to_make_is_refused(
    provider: Provider, members: dict[str, Any], error: str
) -> None:
    provider.change(grant_types=("client_credentials", "authorization_code"))
    made = await register(provider, scope="orders:read")
    own = {"client_id": made.json["client_id"]} if members else {"client_name": "x"}
    reply = await manage(provider, made, "PUT", **(own | members))
    assert reply.error == (400, error)


async def test_client_deletes_itself_and_its_tokens(provider: Provider) -> None:
    made = await register(provider)
    client_id, secret = made.json["client_id"], made.json["client_secret"]
    token = (await provider.issue_token(client_id, secret, None, "x")).access_token
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await provider.fetch("GET", "/validate", bearer)).status == 200
    reply = await manage(provider, made, "DELETE")
    assert (reply.status, reply.body) == (204, b"")
    assert (await provider.fetch("GET", "/validate", bearer)).status == 401
    assert (await manage(provider, made, "GET")).status == 401


async def test_only_the_clients_own_token_manages_it(provider: Provider) -> None:
    first, second = await register(provider), await register(provider)
    for token in ("wrong", second.json["registration_access_token"], "registration-token"):
        for method in ("GET", "DELETE"):
            reply = await manage(provider, first, method, token)
            assert reply.error == (401, "invalid_token")
    await provider.server.register_client(client_id="unmanaged")
    reply = await provider.fetch(
        "GET", "/register", {"Authorization": "Bearer x"}, query="client_id=unmanaged"
    )
    assert reply.status == 401
    assert (await provider.fetch("GET", "/register")).status == 401


async def test_update_renews_the_registration(provider: Provider) -> None:
    made = await register(provider)
    provider.clock.now += 29 * 86400
    reply = await manage(provider, made, "PUT", client_id=made.json["client_id"])
    assert reply.json["client_secret_expires_at"] == provider.clock.now + 30 * 86400


async def test_key_for_encryption_beside_the_one_for_signatures_is_skipped(
    provider: Provider,
) -> None:
    signing = make_key()
    encryption = make_key().as_dict(private=False) | {"use": "enc", "kid": "e"}
    other = {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}
    keys = {"keys": [encryption, other, *jwks(signing)["keys"]]}
    reply = await register(provider, token_endpoint_auth_method="private_key_jwt", jwks=keys)
    assert reply.status == 201
    assertion = make_assertion(
        signing, reply.json["client_id"], provider.policy.issuer, provider.clock.now
    )
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    body = f"grant_type=client_credentials&client_assertion_type={kind}"
    reply = await provider.fetch("POST", "/token", FORM, f"{body}&client_assertion={assertion}")
    assert reply.status == 200
    private = make_key().as_dict(private=True) | {"use": "enc"}
    reply = await register(provider, jwks={"keys": [*keys["keys"], private]})
    assert reply.error == (400, "invalid_client_metadata")


async def test_management_ends_with_the_registration(provider: Provider) -> None:
    made = await register(provider)
    provider.clock.now += 30 * 86400
    assert (await manage(provider, made, "GET")).status == 401


async def test_create_client_is_another_face_of_the_same_registry(provider: Provider) -> None:
    provider.change(grant_types=("client_credentials", "authorization_code"))
    reply = await provider.fetch(
        "POST", "/createClient",
        REGISTER | {
            "client_id": "web", "grant_types": "authorization_code client_credentials",
            "redirect_uris": "https://web.example/back", "description": "The web shop",
        },
    )  # fmt: skip
    assert (reply.status, reply.json["grant_types"]) == (
        201,
        ["authorization_code", "client_credentials"],
    )
    client = await provider.server.store.clients.get_client("web")
    assert client is not None
    assert metadata_of(client).redirect_uris == ("https://web.example/back",)
    reply = await provider.fetch("POST", "/createClient", REGISTER | {"grant_types": "password"})
    assert reply.error == (400, "invalid_client_metadata")


def test_metadata_survives_the_store_and_shows_no_token() -> None:
    metadata = ClientMetadata(contacts=("a",), registration_token_digest="d1gest")
    assert metadata.stored() == {"contacts": ["a"], "registration_token_digest": "d1gest"}
    assert metadata.described() == {"grant_types": ["client_credentials"], "contacts": ["a"]}
    assert "d1gest" not in repr(metadata)
    assert "registration_token_digest" not in REGISTRABLE
    assert read_metadata({"registration_token_digest": "x"}).registration_token_digest is None


def test_redirect_uri_that_no_field_can_hold_is_never_chosen() -> None:
    old = "https://\u212aelvin.example/cb"  # registered before that was checked
    assert choose_redirect([old], None) is None
    assert choose_redirect([old], old) is None
    assert choose_redirect([old, "https://a.example/"], None) == "https://a.example/"


def test_no_expression_on_text_ignores_case_beyond_ascii() -> None:
    """The Kelvin sign would be a `k`, the long s an `s`."""
    found = []
    for path in Path(gateway.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("re."):
                continue
            flags = " ".join(map(ast.unparse, [*node.args[1:], *(k.value for k in node.keywords)]))
            is_bytes = ast.unparse(node.args[0]).startswith(("b", "rb"))
            if "IGNORECASE" in flags and "ASCII" not in flags and not is_bytes:
                found.append(f"{path.name}:{node.lineno}")
    assert not found
