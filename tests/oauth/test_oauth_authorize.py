"""The authorization endpoint: requests, sign-in, consent, sign-out, as a browser sees them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from browser import (
    CHALLENGE,
    PASSWORD,
    REDIRECT,
    WEB,
    Browser,
    ask_for,
    open_door,
    policy_of,
    query_of,
    redeem,
    told,
)
from provider import FORM, Provider, basic
from web_forms import Page

from gateway.oauth.metadata import ClientMetadata
from gateway.oauth.policy import ProtectedResource

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
    answer = await browser.send(consent)
    assert answer.status == 303, "a form must not be sent on (RFC 9700 4.12)"
    assert answer.headers["Location"].startswith(f"{REDIRECT}?")
    members = told(answer)
    assert members.keys() == {"code", "state", "iss"}
    assert members["state"] == "a state"
    assert members["iss"] == provider.policy.issuer
    assert len(members["code"]) >= 43
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


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
async def test_a_wrong_client_or_redirect_uri_is_told_on_a_page_and_sends_nobody_anywhere(
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
async def test_what_else_is_wrong_is_told_to_the_client(
    provider: Provider, changes: dict[str, Any], error: str
) -> None:
    await open_door(provider)
    reply = await Browser(provider).authorize(**changes)
    answer = told(reply)
    assert reply.headers["Location"].startswith(f"{REDIRECT}?")
    assert (answer["error"], answer["state"]) == (error, "a state")
    assert answer["iss"] == provider.policy.issuer
    assert "code" not in answer


async def test_a_client_that_is_not_registered_for_the_grant_is_told(provider: Provider) -> None:
    await open_door(provider, metadata=ClientMetadata(redirect_uris=(REDIRECT,)))
    assert told(await Browser(provider).authorize())["error"] == "unauthorized_client"


async def test_a_client_whose_registration_has_ended_gets_nothing(provider: Provider) -> None:
    await open_door(provider)
    provider.clock.now += 31 * 86400
    reply = await Browser(provider).authorize()
    assert (reply.status, "Location" in reply.headers) == (400, False)


async def test_a_repeated_state_is_not_sent_back(provider: Provider) -> None:
    await open_door(provider)
    answer = told(await Browser(provider).authorize(state=["one", "two"]))
    assert answer["error"] == "invalid_request"
    assert "state" not in answer


async def test_parameters_that_nobody_knows_are_ignored(provider: Provider) -> None:
    await open_door(provider)
    assert (await Browser(provider).authorize(colour="blue", display="")).status == 200


async def test_a_request_may_be_a_form(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    assert "code" in told(await browser.allow())
    reply = await provider.ask("POST", "/authorize", FORM, ask_for())
    assert reply.status == 303, "by a link, since browsers keep our cookies from foreign forms"
    assert told(await browser.get(reply.headers["Location"]))["state"] == "a state"
    refused = await provider.ask("POST", "/authorize", FORM, ask_for(code_challenge=None))
    assert told(refused)["error"] == "invalid_request"
    other = await provider.ask("POST", "/authorize", {"Content-Type": "text/plain"}, ask_for())
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
    answer = await Browser(provider).allow(redirect_uri=uri)
    assert query_of(answer.headers["Location"])["tenant"] == ["1"]
    assert told(answer)["state"] == "a state"


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


async def test_pages_run_nothing_are_in_no_frame_and_send_forms_here_and_to_the_client(
    provider: Provider,
) -> None:
    await open_door(provider)
    browser = Browser(provider)
    sign_in = await browser.authorize()
    consent = await browser.sign_in(sign_in)
    for reply in (sign_in, consent):
        policy = policy_of(reply)
        assert policy["default-src"] == ["'none'"]
        assert policy["frame-ancestors"] == ["'none'"]
        assert policy["form-action"] == ["'self'", "https://app.example"]
        page = Page(reply.body.decode())
        assert "script" not in page.tags
        assert not [name for _, name in page.attributes if name == "style" or name[:2] == "on"]
        sheet = page.html.partition('stylesheet" href="')[2].partition('"')[0]
        assert (await provider.ask("GET", sheet)).headers["Content-Type"].startswith("text/css")


async def test_pages_can_be_used_by_everybody(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    reply = await browser.authorize()
    failed = await browser.send(reply, username="alice", password="wrong")
    empty = await browser.send(reply, username="", password="")
    for page in (Page(one.body.decode()) for one in (reply, failed, empty)):
        assert '<html lang="en">' in page.html
        assert page.tags.count("main") == page.tags.count("h1") == 1
        assert {"username", "password"} <= page.labels
        assert {"username", "password"} <= page.ids
        for ids in page.described_by.values():
            assert set(ids) <= page.ids
    assert Page(failed.body.decode()).described_by["password"] == ["notice"]
    assert Page(empty.body.decode()).described_by["username"] == ["username-error"]
    assert b'role="alert"' in failed.body
    assert b"<title>Error: " in failed.body


async def test_what_a_client_says_is_escaped_and_its_links_are_not_followed(
    provider: Provider,
) -> None:
    await open_door(provider)
    await provider.server.update_client("web", client_name='<script>"&')
    browser = Browser(provider)
    sign_in = await browser.authorize(login_hint='"><script>')
    consent = await browser.sign_in(sign_in)
    for reply in (sign_in, consent):
        assert b"<script>" not in reply.body
    assert b"&lt;script&gt;&#34;&amp;" in consent.body


async def test_name_and_password_fail_alike(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    page = await browser.authorize()
    before = provider.hasher.count
    wrong = await browser.send(page, username="alice", password="wrong")
    unknown = await browser.send(page, username="mallory", password="wrong")
    odd = await browser.send(page, username="no such: name", password="wrong")
    assert provider.hasher.count == before + 3, "each costs a hash"
    told_alike = {one.body.replace(name, b"") for one, name in (
        (wrong, b"alice"), (unknown, b"mallory"), (odd, b"no such: name"),
    )}  # fmt: skip
    assert len(told_alike) == 1
    assert {one.status for one in (wrong, unknown, odd)} == {403}
    assert not [name for name in browser.cookies if "session" in name]


async def test_guessing_a_password_is_stopped_for_the_user_and_the_source(
    provider: Provider,
) -> None:
    await open_door(provider)
    browser = Browser(provider)
    page = await browser.authorize()
    for _ in range(5):
        assert (await browser.send(page, username="alice", password="wrong")).status == 403
    count = provider.hasher.count
    limited = await browser.send(page, username="alice", password=PASSWORD)
    assert (limited.status, limited.headers["Retry-After"]) == (429, "600")
    assert provider.hasher.count == count, "no hash is computed"
    assert (await browser.send(page, username="mallory", password="wrong")).status == 403
    elsewhere = Browser(provider, source="192.0.2.99")
    assert (await elsewhere.sign_in(await elsewhere.authorize())).status == 200
    provider.clock.now += 601
    assert (await browser.send(page, username="alice", password=PASSWORD)).status == 303


async def test_a_sign_in_form_from_elsewhere_signs_nobody_in(provider: Provider) -> None:
    await open_door(provider)
    page = await Browser(provider).authorize()
    stranger = Browser(provider)
    reply = await stranger.send(page, username="alice", password=PASSWORD)
    assert reply.status == 403
    assert not [name for name in stranger.cookies if "session" in name]
    assert (await stranger.sign_in(reply)).status == 200, "with the new page, it goes on"


async def test_a_consent_form_from_elsewhere_allows_nothing(provider: Provider) -> None:
    await open_door(provider)
    browser, attacker = Browser(provider), Browser(provider)
    await provider.server.users.add("eve", PASSWORD)
    theirs = Page(
        (await attacker.sign_in(await attacker.authorize(), username="eve")).body.decode()
    )
    mine = Page((await browser.sign_in(await browser.authorize())).body.decode())
    for fields in ({}, theirs.form.fields):
        reply = await browser.post(mine.form.action, {**fields, "decision": "allow"})
        assert (reply.status, "Location" in reply.headers) == (403, False)
    other = f"/authorize/consent?{ask_for(scope='orders:write')}"
    reply = await browser.post(other, {**mine.form.fields, "decision": "allow"})
    assert reply.status == 403, "the token is for what was shown on its page"


async def test_a_user_may_refuse(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    consent = await browser.sign_in(await browser.authorize())
    answer = told(await browser.send(consent, button=1))
    assert (answer["error"], answer["state"]) == ("access_denied", "a state")
    assert (await browser.authorize()).status == 200, "nothing was remembered"


async def test_a_consent_is_remembered_for_the_client_and_its_scopes(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    await browser.code()
    assert "code" in told(await browser.authorize())
    assert "code" in told(await browser.authorize(prompt="none"))
    assert (await browser.authorize(scope="orders:read orders:write")).status == 200
    answer = told(await browser.authorize(scope="orders:write", prompt="none"))
    assert answer["error"] == "consent_required"
    assert (await browser.authorize(prompt="consent")).status == 200
    await browser.code(scope="orders:read orders:write")
    assert "code" in told(await browser.authorize(scope="orders:write"))
    await provider.server.delete_client("web")
    provider.clock.now += 1
    await provider.server.register_client(client_id="web", client_secret="secret", metadata=WEB)
    assert (await browser.authorize()).status == 200, "a namesake was allowed nothing"


async def test_what_was_allowed_at_one_resource_is_not_allowed_at_another(
    provider: Provider,
) -> None:
    resources = (ProtectedResource("/a"), ProtectedResource("/b"))
    await open_door(provider, resources=resources)
    browser = Browser(provider)
    one, other = (f"http://gateway.test/{name}" for name in "ab")
    await browser.code(resource=one)
    assert "code" in told(await browser.authorize(resource=one))
    assert (await browser.authorize(resource=other)).status == 200
    assert (await browser.authorize()).status == 200, "nor everywhere"


async def test_a_public_client_on_this_device_is_asked_for_each_time(provider: Provider) -> None:
    await open_door(provider, metadata=NATIVE)
    uri = "http://127.0.0.1:51004/callback"
    browser = Browser(provider)
    await browser.code(redirect_uri=uri)
    assert (await browser.authorize(redirect_uri=uri)).status == 200
    answer = told(await browser.authorize(redirect_uri=uri, prompt="none"))
    assert answer["error"] == "consent_required"


async def test_an_operator_can_have_users_not_asked(provider: Provider) -> None:
    await open_door(provider, metadata=replace(WEB, skip_consent=True))
    browser = Browser(provider)
    assert "code" in told(await browser.sign_in(await browser.authorize()))


async def test_a_client_cannot_have_users_not_asked(provider: Provider) -> None:
    await open_door(provider)
    register = {"Authorization": "Bearer registration-token", "Content-Type": "application/json"}
    body = f'{{"redirect_uris": ["{REDIRECT}"], "grant_types": ["authorization_code"]'
    reply = await provider.ask("POST", "/register", register, body + ', "skip_consent": true}')
    assert reply.error == (400, "invalid_client_metadata")
    reply = await provider.ask("POST", "/register", register, body + "}")
    mine = {**register, "Authorization": f"Bearer {reply.json['registration_access_token']}"}
    client_id = reply.json["client_id"]
    body = f'{body}, "client_id": "{client_id}"'
    query = f"client_id={client_id}"
    reply = await provider.ask(
        "PUT", "/register", mine, body + ', "skip_consent": true}', query=query
    )
    assert reply.error == (400, "invalid_client_metadata")
    await provider.server.update_client(
        client_id, metadata=lambda metadata: replace(metadata, skip_consent=True)
    )
    reply = await provider.ask(
        "PUT", "/register", mine, body + ', "skip_consent": true}', query=query
    )
    assert reply.json["skip_consent"] is True, "what an operator gave may stay"
    moved = body.replace(REDIRECT, "https://evil.example/") + ', "skip_consent": true}'
    reply = await provider.ask("PUT", "/register", mine, moved, query=query)
    assert "skip_consent" not in reply.json, "but not for other addresses"


async def test_who_is_signed_in_can_be_somebody_else(provider: Provider) -> None:
    await open_door(provider)
    await provider.server.users.add("bob", PASSWORD)
    browser = Browser(provider)
    consent = await browser.sign_in(await browser.authorize())
    switch = next(link for link in Page(consent.body.decode()).links if "prompt=login" in link)
    consent = await browser.sign_in(await browser.get(switch), username="bob")
    assert b"<strong>bob</strong>" in consent.body


async def test_a_session_begins_anew_with_each_sign_in_and_ends(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    await browser.sign_in(await browser.authorize())
    first = browser.cookies["gateway_session"]
    await browser.sign_in(await browser.authorize(prompt="login"))
    assert browser.cookies["gateway_session"] != first
    assert await provider.sessions.find(first) is None
    browser.cookies["gateway_session"] = "made-up-by-somebody-else"
    assert b'name="password"' in (await browser.authorize()).body
    await browser.sign_in(await browser.authorize())
    provider.clock.now += 8 * 3600
    assert b'name="password"' in (await browser.authorize()).body


async def test_a_new_password_ends_all_sessions(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    await browser.code()
    await provider.server.users.set_password("alice", "another password")
    page = await browser.authorize()
    assert b'name="password"' in page.body
    assert (await browser.send(page, username="alice", password=PASSWORD)).status == 403
    assert (await browser.sign_in(page, password="another password")).status == 303


async def test_a_user_signs_out(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    await browser.code()
    session = browser.cookies["gateway_session"]
    page = await browser.get("/authorize/sign-out")
    assert b"alice" in page.body
    assert (await browser.post("/authorize/sign-out", {})).status == 403, "not by a foreign form"
    assert await provider.sessions.find(session) is not None
    done = await browser.send(page)
    assert done.status == 200
    assert "gateway_session" not in browser.cookies
    assert await provider.sessions.find(session) is None
    assert b"signed out" in (await browser.get("/authorize/sign-out")).body


async def test_cookies_of_an_https_issuer_are_bound_to_its_host(provider: Provider) -> None:
    await open_door(provider, issuer="https://gateway.test")
    browser = Browser(provider)
    await browser.code()
    assert set(browser.cookies) == {"__Host-gateway_session"}
    (cookie,) = [
        value
        for name, value in (await browser.authorize(prompt="login")).fields
        if name == "Set-Cookie"
    ]
    assert cookie.endswith("Path=/; HttpOnly; Secure; SameSite=Lax")


async def test_nothing_is_kept_of_who_only_looks(provider: Provider) -> None:
    await open_door(provider)
    for _ in range(3):
        await Browser(provider).authorize()
    for kind in ("session", "consent", "authorization-code", "sign-in"):
        assert not await provider.store.list_records(kind)


async def test_secrets_of_browsers_and_codes_are_not_readable_in_the_store(
    provider: Provider,
) -> None:
    await open_door(provider)
    browser = Browser(provider)
    code = await browser.code()
    session = browser.cookies["gateway_session"]
    for kind in ("user", "session", "consent", "authorization-code"):
        records = await provider.store.list_records(kind)
        assert records, kind
        for record in records:
            for secret in (code, session, PASSWORD):
                assert secret not in record.key
                assert secret.encode() not in record.value


async def test_a_store_that_is_away_is_told_on_a_page(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_door(provider)
    await provider.store.close()
    reply = await Browser(provider).authorize()
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert reply.headers["Content-Type"].startswith("text/html")


async def test_metadata_tells_of_the_endpoint_where_it_is(provider: Provider) -> None:
    path = "/.well-known/oauth-authorization-server"
    assert "authorization_endpoint" not in (await provider.ask("GET", path)).json
    await open_door(provider)
    described = (await provider.ask("GET", path)).json
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
    assert (await provider.ask("PUT", "/authorize")).status == 405
    assert (await provider.ask("GET", "/authorize/consent")).status == 405


async def test_password_and_implicit_are_refused_by_design(provider: Provider) -> None:
    await open_door(provider)
    form = urlencode({"grant_type": "password", "username": "alice", "password": PASSWORD})
    reply = await provider.ask("POST", "/token", {**FORM, **basic("web", "secret")}, form)
    assert reply.error == (400, "unsupported_grant_type")
    answer = await Browser(provider).authorize(response_type="token")
    assert told(answer)["error"] == "unsupported_response_type"
    assert urlsplit(answer.headers["Location"]).fragment == ""
