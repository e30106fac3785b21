"""`/createClient`: every parameter in every place, and every refusal."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from support.provider import FORM, JSON, REGISTER, Provider, Reply, basic

from gateway.oauth.endpoints import EndpointRequest


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"client_id": "a", "client_secret": "b", "client_name": "c"}, ""),
        ({"CLIENT_ID": "a", "Client_Secret": "b", "client_name": "c"}, ""),
        (FORM, "client_id=a&client_secret=b&client_name=c"),
        (JSON, '{"client_id": "a", "client_secret": "b", "client_name": "c"}'),
        (JSON | {"client_id": "a"}, '{"client_secret": "b", "client_name": "c", "jwks": []}'),
    ],
)
async def test_client_is_created_from_headers_form_or_json(
    provider: Provider, headers: dict[str, str], body: str
) -> None:
    reply = await provider.fetch("POST", "/createClient", REGISTER | headers, body)
    assert reply.status == 201
    assert reply.json == {
        "message": "Client created successfully.",
        "client_id": "a",
        "client_secret": "b",
        "client_name": "c",
        "client_id_issued_at": 1_000_000,
        "client_secret_expires_at": 1_000_000 + 30 * 86400,
        "grant_types": ["client_credentials"],
        "scope": "orders:read orders:write",
    }
    assert reply.headers["Cache-Control"] == "no-store"
    issued = await provider.issue_token("a", "b", None, "x")
    assert issued.token.client_name == "c"


async def test_id_and_secret_are_made_up_where_they_are_not_given(provider: Provider) -> None:
    replies = [await provider.fetch("POST", "/createClient", REGISTER) for _ in range(2)]
    first, second = (reply.json for reply in replies)
    assert first["client_id"] != second["client_id"]
    assert first["client_secret"] != second["client_secret"]
    assert len(first["client_secret"]) >= 43, "256 random bits"
    assert first["client_name"] == first["client_id"]
    assert await provider.issue_token(first["client_id"], first["client_secret"], None, "x")


async def test_client_that_never_ends_says_0(provider: Provider) -> None:
    provider.change(client_ttl_s=None)
    reply = await provider.fetch("POST", "/createClient", REGISTER)
    assert reply.json["client_secret_expires_at"] == 0


async def test_scope_of_a_client_is_what_it_was_registered_with(provider: Provider) -> None:
    reply = await provider.fetch("POST", "/createClient", REGISTER, '{"scope": "orders:write"}')
    assert reply.error == (400, "invalid_request"), "a JSON body needs its content type"
    reply = await provider.fetch(
        "POST", "/createClient", REGISTER | JSON, '{"scope": "orders:write", "client_id": "w"}'
    )
    assert reply.json["scope"] == "orders:write"
    reply = await provider.fetch("POST", "/createClient", REGISTER | {"scope": "nonsense"})
    assert reply.error == (400, "invalid_client_metadata")


@pytest.mark.parametrize(
    "parameters",
    [
        {"client_id": "a b"}, {"client_id": "a:b"}, {"client_id": "x" * 256}, {"client_id": "å"},
        {"client_secret": "å"}, {"client_secret": "x" * 257}, {"client_name": "x" * 201},
        {"client_name": "a\u0000b"}, {"client_name": "a\nb"},
    ],
)  # fmt: skip
async def test_metadata_that_cannot_be_used_is_refused(
    provider: Provider, parameters: dict[str, str]
) -> None:
    reply = await provider.fetch("POST", "/createClient", REGISTER | FORM, urlencode(parameters))
    assert reply.error == (400, "invalid_client_metadata")


async def test_fields_may_have_hyphens_for_the_underscores_that_nginx_drops(
    provider: Provider,
) -> None:
    fields = {"Client-Id": "shop", "Client-Secret": "secret", "client-name": "Shop"}
    reply = await provider.fetch("POST", "/createClient", REGISTER | fields)
    assert (reply.json["client_id"], reply.json["client_name"]) == ("shop", "Shop")
    fields |= {"grant-type": "client_credentials"}
    assert (await provider.fetch("POST", "/token", fields)).status == 200
    # Where both are there, those with underscores count.
    fields = {"client_id": "shop", "client_secret": "secret", "client-id": "another"}
    grant = "grant_type=client_credentials"
    assert (await provider.fetch("POST", "/token", fields | FORM, grant)).status == 200


async def test_response_says_that_the_request_named_no_client(provider: Provider) -> None:
    reply = await provider.fetch("POST", "/createClient", REGISTER)
    assert reply.status == 201
    assert "named no client_id" in reply.json["message"]


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "application/xml", ""])
async def test_type_of_a_body_without_bytes_does_not_matter(
    provider: Provider, media_type: str
) -> None:
    fields = {"client_id": "shop", "client_secret": "secret", "Content-Type": media_type}
    assert (await provider.fetch("POST", "/createClient", REGISTER | fields)).status == 201
    reply = await provider.fetch("POST", "/token", fields | {"grant_type": "client_credentials"})
    assert reply.status == 200
    assert (await provider.fetch("POST", "/token", fields, "x=1")).status == 400


async def test_name_in_latin_1_is_read(provider: Provider) -> None:
    for raw, name in ((b"M\xfcller", "Müller"), ("Müller".encode(), "Müller")):
        headers = [(b"Authorization", b"Bearer registration-token"), (b"client_name", raw)]
        response = await provider.endpoints.respond(
            EndpointRequest("POST", "/createClient", "", headers, b"", "192.0.2.1")
        )
        assert Reply(response).json["client_name"] == name


async def test_spelling_of_mule_is_taken_at_registration_and_named_at_the_token_endpoint(
    provider: Provider,
) -> None:
    fields = {"client_id": "a", "client_secret": "secret", "grant_types": "CLIENT_CREDENTIALS"}
    reply = await provider.fetch("POST", "/createClient", REGISTER | fields)
    assert (reply.status, reply.json["grant_types"]) == (201, ["client_credentials"])
    body = "grant_type=CLIENT_CREDENTIALS"
    reply = await provider.fetch("POST", "/token", basic("a", "secret") | FORM, body)
    assert reply.error == (400, "unsupported_grant_type")
    assert "client_credentials" in reply.json["error_description"]


async def test_id_and_secret_may_be_in_two_places(provider: Provider, shop: str) -> None:
    body = f"grant_type=client_credentials&client_id={shop}"
    reply = await provider.fetch("POST", "/token", {"client_secret": "secret"} | FORM, body)
    assert reply.status == 200
    reply = await provider.fetch(
        "POST", "/token", {"client_secret": "secret", "client_id": "other"} | FORM, body
    )
    assert reply.error == (400, "invalid_request")


async def test_taken_id_is_409_and_leaves_its_owner_alone(provider: Provider, shop: str) -> None:
    reply = await provider.fetch("POST", "/createClient", REGISTER | {"client_id": shop})
    assert reply.error == (409, "client_already_exists")
    assert await provider.issue_token(shop, "secret", None, "x")


async def test_taken_id_is_replaced_and_its_tokens_revoked_where_that_is_allowed(
    provider: Provider,
) -> None:
    shop = "shop"
    given = REGISTER | {"client_id": shop, "client_secret": "secret"}
    assert (await provider.fetch("POST", "/createClient", given)).status == 201
    token = (await provider.issue_token(shop, "secret", None, "x")).access_token
    provider.change(fail_if_present=False)
    reply = await provider.fetch(
        "POST", "/createClient", REGISTER | {"client_id": shop, "client_secret": "new"}
    )
    assert (reply.status, reply.json["replaced"]) == (201, True)
    assert await provider.server.inspect_token(token) is None
    reply = await provider.fetch(
        "POST", "/token", basic(shop, "secret") | FORM, "grant_type=client_credentials"
    )
    assert reply.error == (401, "invalid_client")
    assert await provider.issue_token(shop, "new", None, "x")


async def test_registration_needs_its_token(provider: Provider) -> None:
    reply = await provider.fetch("POST", "/createClient")
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="gateway"'
    reply = await provider.fetch("POST", "/createClient", {"Authorization": "Bearer wrong"})
    assert reply.error == (401, "invalid_token")
    reply = await provider.fetch("POST", "/createClient", basic("a", "registration-token"))
    assert reply.status == 401


async def test_guessing_the_registration_token_is_limited(provider: Provider) -> None:
    for number in range(5):
        wrong = {"Authorization": f"Bearer wrong-{number}"}
        reply = await provider.fetch("POST", "/createClient", wrong)
        assert reply.status == 401
    reply = await provider.fetch("POST", "/createClient", REGISTER)
    assert (reply.status, reply.headers["Retry-After"]) == (429, "600")
    reply = await provider.fetch("POST", "/createClient", REGISTER, source="192.0.2.2")
    assert reply.status == 201


@pytest.mark.parametrize("path", ["/createClient", "/register"])
async def test_service_that_still_sends_the_old_registration_token_locks_no_other_out(
    provider: Provider, path: str
) -> None:
    for _ in range(20):
        reply = await provider.fetch("POST", path, {"Authorization": "Bearer of-last-year"}, "{}")
        assert reply.status == 401
    assert (await provider.fetch("POST", "/createClient", REGISTER)).status == 201


async def test_open_registration_asks_for_nothing_and_off_refuses_every_client(
    provider: Provider,
) -> None:
    provider.change(registration_mode="open")
    assert (await provider.fetch("POST", "/createClient")).status == 201
    provider.change(registration_mode="off")
    assert (await provider.fetch("POST", "/createClient", REGISTER)).error == (403, "access_denied")


@pytest.mark.parametrize("path", ["/createClient", "/token"])
async def test_query_parameters_are_refused_unless_listed(provider: Provider, path: str) -> None:
    headers = REGISTER if path == "/createClient" else {}
    query = "client_id=q&client_secret=secret&grant_type=client_credentials"
    reply = await provider.fetch("POST", path, headers, query=query)
    assert reply.error == (400, "invalid_request")
    provider.change(credentials_in=frozenset({"query"}))
    reply = await provider.fetch(
        "POST", "/createClient", REGISTER, query="client_id=q&client_secret=secret"
    )
    assert reply.status == 201
    assert (await provider.fetch("POST", "/token", query=query)).status == 200


async def test_places_that_are_not_listed_are_refused_for_registration(provider: Provider) -> None:
    provider.change(registration_mode="open", credentials_in=frozenset({"basic"}))
    reply = await provider.fetch("POST", "/createClient", {"client_id": "a"})
    assert reply.error == (400, "invalid_request")
    reply = await provider.fetch("POST", "/createClient", FORM, "client_id=a")
    assert reply.error == (400, "invalid_request")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([("client_id", "a"), ("client_id", "b")], ""),
        ([("client_id", "a"), *FORM.items()], "client_id=a"),
        ([*FORM.items()], "client_id=a&client_id=a"),
        ([*JSON.items()], '{"client_id": 1}'),
        ([*JSON.items()], "[]"),
        ([*JSON.items()], "{"),
        ([*FORM.items()], "client_id=%ff"),
        ([*FORM.items()], "&".join(f"p{number}=1" for number in range(65))),
        ([("Content-Type", "text/plain")], "client_id=a"),
        ([*JSON.items(), *FORM.items()], "{}"),
    ],
)
async def test_ambiguous_registration_is_rejected(
    provider: Provider, headers: list[tuple[str, str]], body: str
) -> None:
    provider.change(registration_mode="open")
    reply = await provider.fetch("POST", "/createClient", headers, body)
    assert reply.error == (400, "invalid_request")
