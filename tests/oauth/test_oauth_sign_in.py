"""Sign-in, consent, sessions and sign-out, as a browser sees them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Literal
from urllib.parse import urlencode

import pytest
from support import settings
from support.clients.browser import (
    PASSWORD,
    REDIRECT,
    WEB,
    Browser,
    authorization_parameters,
    open_door,
    policy_of,
    redeem,
    reported,
)
from support.clients.web_forms import Page
from support.provider import FORM, JSON, Provider, Reply

from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.policy import ProtectedResource, Tool, name_in_words

NATIVE = ClientMetadata(
    grant_types=("authorization_code",),
    redirect_uris=("http://127.0.0.1/callback",),
    token_endpoint_auth_method="none",
)


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
        assert (await provider.fetch("GET", sheet)).headers["Content-Type"].startswith("text/css")


async def test_pages_can_be_used_by_every_user(provider: Provider) -> None:
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
    reported_alike = {one.body.replace(name, b"") for one, name in (
        (wrong, b"alice"), (unknown, b"mallory"), (odd, b"no such: name"),
    )}  # fmt: skip
    assert len(reported_alike) == 1
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


async def test_a_sign_in_form_from_elsewhere_signs_no_user_in(provider: Provider) -> None:
    await open_door(provider)
    page = await Browser(provider).authorize()
    stranger = Browser(provider)
    for _ in range(2):  # without a cookie of the page, then with one of another page
        reply = await stranger.send(page, username="alice", password=PASSWORD)
        assert reply.status == 403
        assert "gateway_sign_in" in stranger.cookies
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
    other = f"/authorize/consent?{authorization_parameters(scope='orders:write')}"
    reply = await browser.post(other, {**mine.form.fields, "decision": "allow"})
    assert reply.status == 403, "the token is for what was shown on its page"


async def test_a_user_may_refuse(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    consent = await browser.sign_in(await browser.authorize())
    response = reported(await browser.send(consent, button=1))
    assert (response["error"], response["state"]) == ("access_denied", "a state")
    assert (await browser.authorize()).status == 200, "nothing was remembered"


async def test_a_consent_is_remembered_for_the_client_and_its_scopes(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    await browser.code()
    assert "code" in reported(await browser.authorize())
    assert "code" in reported(await browser.authorize(prompt="none"))
    assert (await browser.authorize(scope="orders:read orders:write")).status == 200
    response = reported(await browser.authorize(scope="orders:write", prompt="none"))
    assert response["error"] == "consent_required"
    assert (await browser.authorize(prompt="consent")).status == 200
    await browser.code(scope="orders:read orders:write")
    assert "code" in reported(await browser.authorize(scope="orders:write"))
    await provider.server.store.clients.delete_client("web")
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
    assert "code" in reported(await browser.authorize(resource=one))
    assert (await browser.authorize(resource=other)).status == 200
    assert (await browser.authorize()).status == 200, "nor everywhere"


async def test_a_public_client_on_this_device_is_asked_for_each_time(provider: Provider) -> None:
    await open_door(provider, metadata=NATIVE)
    uri = "http://127.0.0.1:51004/callback"
    browser = Browser(provider)
    await browser.code(redirect_uri=uri)
    assert (await browser.authorize(redirect_uri=uri)).status == 200
    response = reported(await browser.authorize(redirect_uri=uri, prompt="none"))
    assert response["error"] == "consent_required"


async def test_an_operator_can_have_users_not_asked(provider: Provider) -> None:
    await open_door(provider, metadata=replace(WEB, skip_consent=True))
    browser = Browser(provider)
    assert "code" in reported(await browser.sign_in(await browser.authorize()))


async def test_a_client_cannot_have_users_not_asked(provider: Provider) -> None:
    await open_door(provider)
    register = {"Authorization": "Bearer registration-token", "Content-Type": "application/json"}
    body = f'{{"redirect_uris": ["{REDIRECT}"], "grant_types": ["authorization_code"]'
    reply = await provider.fetch("POST", "/register", register, body + ', "skip_consent": true}')
    assert reply.error == (400, "invalid_client_metadata")
    reply = await provider.fetch("POST", "/register", register, body + "}")
    mine = {**register, "Authorization": f"Bearer {reply.json['registration_access_token']}"}
    client_id = reply.json["client_id"]
    body = f'{body}, "client_id": "{client_id}"'
    query = f"client_id={client_id}"
    reply = await provider.fetch(
        "PUT", "/register", mine, body + ', "skip_consent": true}', query=query
    )
    assert reply.error == (400, "invalid_client_metadata")
    await provider.server.update_client(
        client_id, metadata=lambda metadata: replace(metadata, skip_consent=True)
    )
    reply = await provider.fetch(
        "PUT", "/register", mine, body + ', "skip_consent": true}', query=query
    )
    assert reply.json["skip_consent"] is True, "what an operator gave may stay"
    moved = body.replace(REDIRECT, "https://evil.example/") + ', "skip_consent": true}'
    reply = await provider.fetch("PUT", "/register", mine, moved, query=query)
    assert "skip_consent" not in reply.json, "but not for other addresses"


async def test_a_signed_in_user_can_switch_accounts(provider: Provider) -> None:
    await open_door(provider)
    await provider.server.users.add("bob", PASSWORD)
    browser = Browser(provider)
    consent = await browser.sign_in(await browser.authorize())
    switch = next(link for link in Page(consent.body.decode()).links if "prompt=login" in link)
    consent = await browser.sign_in(await browser.get(switch), username="bob")
    assert b"<strong>bob</strong>" in consent.body


async def test_a_session_is_renewed_with_each_sign_in_and_expires(provider: Provider) -> None:
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


async def test_a_sign_in_that_a_new_password_overtook_gives_no_session(provider: Provider) -> None:
    await open_door(provider)
    user = await provider.server.users.verify("alice", PASSWORD)
    assert user is not None
    await provider.server.users.set_password("alice", "another password")
    session = await provider.sessions.begin(user)
    assert await provider.sessions.find(session.secret) is None


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
        assert not await provider.store.records.list_records(kind)


async def test_secrets_of_browsers_and_codes_are_not_readable_in_the_store(
    provider: Provider,
) -> None:
    await open_door(provider)
    browser = Browser(provider)
    code = await browser.code()
    session = browser.cookies["gateway_session"]
    for kind in ("user", "session", "consent", "authorization-code"):
        records = await provider.store.records.list_records(kind)
        assert records, kind
        for record in records:
            for secret in (code, session, PASSWORD):
                assert secret not in record.key
                assert secret.encode() not in record.value


async def test_many_names_from_one_network_are_stopped_and_right_ones_count_for_nothing(
    provider: Provider,
) -> None:
    await open_door(provider)
    for _ in range(31):
        browser = Browser(provider, source="2001:db8::1")
        page = await browser.authorize()
        assert (await browser.send(page, username="alice", password=PASSWORD)).status == 303
    page = await browser.authorize(prompt="login")
    for number in range(30):
        reply = await browser.send(page, username=f"user{number}", password="wrong")
        assert reply.reason == "sign_in_failed"
    neighbour = Browser(provider, source="2001:db8::2")
    page = await neighbour.authorize()
    limited = await neighbour.send(page, username="bob", password="wrong")
    assert (limited.status, limited.reason) == (429, "too_many_attempts")
    elsewhere = Browser(provider, source="2001:db8:1::2")
    assert (await elsewhere.sign_in(await elsewhere.authorize())).status == 200


async def test_burst_of_names_from_one_network_counts_each(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    page = await browser.authorize()
    replies = await asyncio.gather(
        *(browser.send(page, username=f"user{n}", password="wrong") for n in range(45))
    )
    statuses = [reply.status for reply in replies]
    assert statuses.count(429) >= 15, statuses


async def test_consent_ends_when_the_client_becomes_another_one(provider: Provider) -> None:
    await open_door(provider)
    browser = Browser(provider)
    await browser.code()
    assert "code" in reported(await browser.authorize())
    other = "https://evil.example/callback"
    await provider.server.update_client(
        "web", metadata=lambda old: replace(old, redirect_uris=(REDIRECT, other))
    )
    assert "code" in reported(await browser.authorize()), "what was agreed to is still there"
    assert (await browser.authorize(redirect_uri=other)).status == 200
    await browser.code(redirect_uri=other)
    for uri in (other, REDIRECT):
        assert "code" in reported(await browser.authorize(redirect_uri=uri))
    await provider.server.update_client("web", client_name="Your Bank")
    assert (await browser.authorize()).status == 200


async def test_page_says_that_a_client_registered_itself(provider: Provider) -> None:
    origins: tuple[Literal["open", "token"] | None, ...] = ("open", "token", None)
    for registered_by in origins:
        await open_door(provider, metadata=replace(WEB, registered_by=registered_by))
        browser = Browser(provider)
        page = await browser.sign_in(await browser.authorize())
        assert (b"registered itself" in page.body) is (registered_by == "open")
        await provider.server.store.clients.delete_client("web")
        await provider.server.users.delete("alice")


@pytest.mark.parametrize("mode", ["cors", "same-origin", "no-cors", "websocket"])
async def test_pages_are_for_browsers_that_navigate_and_not_for_scripts(
    provider: Provider, mode: str
) -> None:
    await open_door(provider)
    browser = Browser(provider)
    consent = await browser.sign_in(await browser.authorize())
    form = Page(consent.body.decode()).form
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    headers = {"Cookie": cookie, "Sec-Fetch-Mode": mode, "Sec-Fetch-Site": "same-origin"}
    query = authorization_parameters()
    page = await provider.fetch("GET", "/authorize", headers, query=query)
    assert (page.status, page.reason) == (403, "not_a_navigation")
    assert b"form_token" not in page.body
    body = urlencode(form.fields | {"decision": "allow"})
    sent = await provider.fetch("POST", "/authorize/consent", headers | FORM, body, query=query)
    assert (sent.status, sent.reason) == (403, "not_a_navigation")
    headers["Sec-Fetch-Mode"] = "navigate"
    sent = await provider.fetch("POST", "/authorize/consent", headers | FORM, body, query=query)
    assert "code" in reported(sent)


async def test_new_password_revokes_tokens_where_that_is_asked_for(provider: Provider) -> None:
    await open_door(
        provider,
        metadata=replace(WEB, grant_types=("authorization_code", "refresh_token")),
        refresh=settings.refresh(strategy="rotating"),
    )
    given = (await redeem(provider, await Browser(provider).code())).json
    users = provider.server.users
    await users.set_password("alice", "another password")
    assert await provider.server.refresh_tokens.inspect(given["refresh_token"]) is not None
    await users.set_password("alice", "a third password", revoke_tokens=True)
    assert await provider.server.refresh_tokens.inspect(given["refresh_token"]) is None
    assert await provider.server.inspect_token(given["access_token"]) is None


async def test_consent_names_the_tools_of_an_mcp_server_in_words(provider: Provider) -> None:
    tools = (
        Tool(name_in_words("list_orders"), ("orders:read",)),
        Tool("Cancel <any> order", ("orders:read", "orders:write")),
        Tool(name_in_words("ping"), ()),
    )
    resources = (ProtectedResource("/mcp", tools=tools), ProtectedResource("/other"))
    await open_door(provider, resources=resources)
    browser = Browser(provider)
    page = await browser.sign_in(
        await browser.authorize(
            scope="orders:read orders:write", resource="http://gateway.test/mcp"
        )
    )
    text = " ".join(page.body.decode().split())
    assert "<code>orders:read</code>: list orders, Cancel &lt;any&gt; order</li>" in text
    assert "<code>orders:write</code>: Cancel &lt;any&gt; order</li>" in text
    assert "without further permission: ping." in text
    one = (await browser.authorize(scope="orders:read", resource="http://gateway.test/mcp")).body
    assert b"list orders" in one
    assert b"Cancel" not in one, "it needs another scope, too"
    assert b"list orders" not in (await browser.authorize(scope="orders:read")).body


@pytest.mark.parametrize(
    ("name", "words"),
    [("get_weather", "get weather"), ("getWeather", "get weather"), ("admin_*", "admin …"),
     ("fs.read-file", "fs read file"), ("*", "everything else"), ("HTTPGet", "httpget")],
)  # fmt: skip
def test_name_of_a_tool_is_written_in_words(name: str, words: str) -> None:
    assert name_in_words(name) == words


async def test_consent_is_no_other_clients_that_registers_under_the_same_name(
    provider: Provider,
) -> None:
    await open_door(provider, registration_mode="open")
    browser = Browser(provider)

    async def ask(redirect_uri: str) -> Reply:
        body = json.dumps({"client_name": "Agent", "redirect_uris": [redirect_uri]})
        made = await provider.fetch("POST", "/register", JSON, body)
        return await browser.authorize(client_id=made.json["client_id"], redirect_uri=redirect_uri)

    page = await browser.sign_in(await ask("https://agent.example/cb"))
    assert "code" in reported(await browser.send(page))
    for redirect_uri in ("https://agent.example/cb", "https://evil.example/cb"):
        reply = await ask(redirect_uri)
        assert reply.status == 200, "asked once more"
        assert b"registered itself" in reply.body
