"""The authorization endpoint: what is asked for, what is refused, and to whom that is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from support.clients.browser import (
    CHALLENGE,
    PASSWORD,
    REDIRECT,
    WEB,
    Browser,
    authorization_parameters,
    open_door,
    query_of,
    redeem,
    reported,
)
from support.clients.web_forms import Page
from support.provider import FORM, Provider, basic

from gateway.oauth.client_metadata import ClientMetadata

NATIVE = ClientMetadata(
    grant_types=("authorization_code",),
    redirect_uris=("http://127.0.0.1/callback",),
    token_endpoint_auth_method="none",
)


async def test_a_user_signs_in_and_allows_and_the_client_gets_a_code(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    sign_in = await browser.authorize()
    assert sign_in.status == 200
    consent = await browser.sign_in(sign_in)
    assert b"Web Shop" in consent.body
    assert b"orders:read" in consent.body
    assert b"app.example" in consent.body
    response = await browser.send(consent)
    assert response.status == 303, "a form must not be sent on (RFC 9700 4.12)"
    assert response.headers["Location"].startswith(f"{REDIRECT}?")
    members = reported(response)
    assert members.keys() == {"code", "state", "iss"}
    assert members["state"] == "a state"
    assert members["iss"] == provider.policy.issuer
    assert len(members["code"]) >= 43
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": "nobody"},
        {"client_id": ["web", "web"]},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": f"{REDIRECT}/"},
        {"redirect_uri": f"{REDIRECT}?x=1"},
        {"redirect_uri": "https://app.example/Callback"},
        {"redirect_uri": "https://app.example:443/callback"},
        {"redirect_uri": "https://app.example@evil.example/callback"},
        {"redirect_uri": [REDIRECT, REDIRECT]},
    ],
)
async def test_a_wrong_client_or_redirect_uri_is_reported_on_a_page_and_redirects_no_user(
    provider: Provider, changes: dict[str, Any]
) -> None:
    await open_door(provider)
    reply = await Browser(provider).authorize(**changes)
    assert reply.status == 400
    assert "Location" not in reply.headers
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert not Page(reply.body.decode()).links[1:], "no link but the one to the content"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": CHALLENGE + "="}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": ["orders:read", "orders:write"]}, "invalid_request"),
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "create"}, "invalid_request"),
        ({"dpop_jkt": "x"}, "invalid_request"),
    ],
)
async def test_what_else_is_wrong_is_reported_to_the_client(
    provider: Provider, changes: dict[str, Any], error: str
) -> None:
    await open_door(provider)
    reply = await Browser(provider).authorize(**changes)
    response = reported(reply)
    assert reply.headers["Location"].startswith(f"{REDIRECT}?")
    assert (response["error"], response["state"]) == (error, "a state")
    assert response["iss"] == provider.policy.issuer
    assert "code" not in response


async def test_a_client_that_is_not_registered_for_the_grant_is_reported(
    provider: Provider,
) -> None:
    await open_door(provider, metadata=ClientMetadata(redirect_uris=(REDIRECT,)))
    assert reported(await Browser(provider).authorize())["error"] == "unauthorized_client"


async def test_a_client_whose_registration_has_ended_gets_nothing(provider: Provider) -> None:
    await open_door(provider)
    provider.clock.now += 31 * 86400
    reply = await Browser(provider).authorize()
    assert (reply.status, "Location" in reply.headers) == (400, False)


async def test_a_repeated_state_is_not_sent_back(provider: Provider) -> None:
    await open_door(provider)
    response = reported(await Browser(provider).authorize(state=["one", "two"]))
    assert response["error"] == "invalid_request"
    assert "state" not in response


async def test_parameters_that_are_unknown_are_ignored(provider: Provider) -> None:
    await open_door(provider)
    assert (await Browser(provider).authorize(colour="blue", display="")).status == 200


async def test_a_request_may_be_a_form(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    assert "code" in reported(await browser.allow())
    reply = await provider.fetch("POST", "/authorize", FORM, authorization_parameters())
    assert reply.status == 303, "by a link, since browsers keep our cookies from foreign forms"
    assert reported(await browser.get(reply.headers["Location"]))["state"] == "a state"
    refused = await provider.fetch(
        "POST", "/authorize", FORM, authorization_parameters(code_challenge=None)
    )
    assert reported(refused)["error"] == "invalid_request"
    other = await provider.fetch(
        "POST", "/authorize", {"Content-Type": "text/plain"}, authorization_parameters()
    )
    assert other.status == 400


async def test_one_registered_redirect_uri_need_not_be_named(provider: Provider) -> None:
    await open_door(provider)
    code = await Browser(provider).code(redirect_uri=None)
    assert (await redeem(provider, code, redirect_uri=None)).status == 200


async def test_of_several_redirect_uris_one_must_be_named(provider: Provider) -> None:
    two = replace(WEB, redirect_uris=(REDIRECT, "https://app.example/other"))
    await open_door(provider, metadata=two)
    assert (await Browser(provider).authorize(redirect_uri=None)).status == 400
    assert (await Browser(provider).authorize()).status == 200


async def test_a_query_of_the_redirect_uri_stays(provider: Provider) -> None:
    uri = "https://app.example/callback?tenant=1"
    await open_door(provider, metadata=replace(WEB, redirect_uris=(uri,)))
    response = await Browser(provider).allow(redirect_uri=uri)
    assert query_of(response.headers["Location"])["tenant"] == ["1"]
    assert reported(response)["state"] == "a state"


@pytest.mark.parametrize(
    ("registered", "given", "is_fine"),
    [
        ("http://127.0.0.1/callback", "http://127.0.0.1:51004/callback", True),
        ("http://127.0.0.1:8000/callback", "http://127.0.0.1:51004/callback", True),
        ("http://[::1]/callback", "http://[::1]:51004/callback", True),
        ("http://localhost/callback", "http://localhost:51004/callback", True),
        ("http://127.0.0.1/callback", "http://127.0.0.1:51004/other", False),
        ("http://127.0.0.1/callback", "http://localhost:51004/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:5@evil.example/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:99999/callback", False),
        ("http://127.0.0.1/callback", "https://127.0.0.1:51004/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1.evil.example/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:/callback", False),
        pytest.param(
            "http://127.0.0.1/callback",
            f"http://127.0.0.1:{'9' * 5000}/callback",
            False,
            id="more digits than a number may have",
        ),
        ("https://app.example/callback", "https://app.example:444/callback", False),
        ("com.example.app:/callback", "com.example.app:/callback", True),
        ("com.example.app:/callback", "com.example.app://callback", False),
    ],
)
async def test_only_the_port_of_a_loopback_address_may_differ(
    provider: Provider, registered: str, given: str, is_fine: bool
) -> None:
    await open_door(provider, metadata=replace(NATIVE, redirect_uris=(registered,)))
    reply = await Browser(provider).authorize(redirect_uri=given)
    assert reply.status == (200 if is_fine else 400)


async def test_a_store_that_is_unavailable_is_reported_on_a_page(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_door(provider)
    await provider.store.close()
    reply = await Browser(provider).authorize()
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert reply.headers["Content-Type"].startswith("text/html")


async def test_metadata_names_the_endpoint_where_it_is(provider: Provider) -> None:
    path = "/.well-known/oauth-authorization-server"
    assert "authorization_endpoint" not in (await provider.fetch("GET", path)).json
    await open_door(provider)
    described = (await provider.fetch("GET", path)).json
    assert described["authorization_endpoint"] == "http://gateway.test/authorize"
    assert described["response_types_supported"] == ["code"]
    assert described["code_challenge_methods_supported"] == ["S256"]
    assert described["authorization_response_iss_parameter_supported"] is True
    assert "none" in described["token_endpoint_auth_methods_supported"]
    assert "none" not in described["introspection_endpoint_auth_methods_supported"]


async def test_without_the_grant_the_path_is_not_ours(provider: Provider) -> None:
    assert not [path for path in provider.endpoints.paths if path.startswith("/authorize")]


async def test_a_method_that_a_page_does_not_take_is_405(provider: Provider) -> None:
    await open_door(provider)
    assert (await provider.fetch("PUT", "/authorize")).status == 405
    assert (await provider.fetch("GET", "/authorize/consent")).status == 405


async def test_password_and_implicit_are_refused_by_design(provider: Provider) -> None:
    await open_door(provider)
    form = urlencode({"grant_type": "password", "username": "alice", "password": PASSWORD})
    reply = await provider.fetch("POST", "/token", {**FORM, **basic("web", "secret")}, form)
    assert reply.error == (400, "unsupported_grant_type")
    response = await Browser(provider).authorize(response_type="token")
    assert reported(response)["error"] == "unsupported_response_type"
    assert urlsplit(response.headers["Location"]).fragment == ""


@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        ({"request": "eyJhbGciOiJub25lIn0.e30."}, "request_not_supported"),
        ({"request_uri": "https://app.example/r"}, "request_uri_not_supported"),
    ],
)
async def test_request_objects_are_rejected_and_not_ignored(
    provider: Provider, parameter: dict[str, str], error: str
) -> None:
    await open_door(provider)
    assert reported(await Browser(provider).authorize(**parameter))["error"] == error
    empty = dict.fromkeys(parameter, "")
    assert (await Browser(provider).authorize(**empty)).status == 200, "as if it were not there"


@pytest.mark.parametrize(
    "changes", [{"prompt": "none"}, {"scope": "admin"}, {"code_challenge": None}, {"request": "x"}]
)
async def test_no_user_is_sent_to_a_client_that_registered_itself_before_agreeing(
    provider: Provider, changes: dict[str, Any]
) -> None:
    await open_door(provider, metadata=replace(WEB, registered_by="open"))
    browser = Browser(provider)
    for is_signed_in in (False, True):
        page = await browser.authorize(**changes)
        assert (page.status, "Location" in page.headers) == (400, False)
        assert b"app.example" in page.body
        assert not Page(page.body.decode()).links[1:]
        if not is_signed_in:
            await browser.sign_in(await browser.authorize())
    # A user that refuses has seen where that leads to.
    denied = await browser.send(await browser.authorize(), button=1)
    assert reported(denied)["error"] == "access_denied"
    assert (await browser.authorize(**changes)).status == 400
    await browser.code()
    response = await browser.authorize(**changes)
    assert "code" in reported(response) or "error" in reported(response)
