"""Signing in at an upstream OpenID provider, which is another server on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from support.clients.browser import WEB, Browser, open_door, policy_of, query_of, redeem, reported
from support.jose_values import make_key
from support.provider import Provider, Reply
from support.servers.openid_server import CLIENT_ID, CLIENT_SECRET, OpenIdServer, openid_server
from support.settings import sign_in_upstream

from gateway.oauth.users.upstream import UpstreamProvider


@pytest.fixture
async def upstream() -> AsyncIterator[OpenIdServer]:
    async with openid_server() as running:
        yield running


async def connect(provider: Provider, upstream: OpenIdServer, **settings: Any) -> None:
    """Have users sign in there."""
    upstream.now = provider.clock.now
    provider.upstream = UpstreamProvider(
        sign_in_upstream(
            **{
                "name": "corp",
                "issuer": upstream.url,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "scopes": ["openid", "profile"],
            }
            | settings
        ),
        provider.fetcher.get,
        provider.fetcher.post_form,
        provider.remote_keys,
        clock=provider.clock,
        wall_clock=provider.clock,
    )
    await open_door(provider)


async def go_there(location: str) -> str:
    """Visit the upstream provider; returns where it sends the browser back to."""
    async with httpx.AsyncClient() as client:
        response = await client.get(location)
        assert response.status_code == 302, response.text
        return response.headers["Location"]


async def go_and_return(browser: Browser, **changes: Any) -> Reply:
    """Be sent away by an authorization request, and come back."""
    away = await browser.authorize(**changes)
    assert away.status == 303, away.body
    return await browser.get(await go_there(away.headers["Location"]))


async def test_a_user_of_the_upstream_provider_signs_in(
    provider: Provider, upstream: OpenIdServer
) -> None:
    await connect(provider, upstream)
    browser = Browser(provider)
    back = await go_and_return(browser)
    assert back.status == 303
    consent = await browser.get(back.headers["Location"])
    assert b"corp:248289761001" in consent.body
    assert policy_of(consent)["form-action"] == ["'self'", "https://app.example"]
    token = await redeem(provider, reported(await browser.send(consent))["code"])
    assert token.status == 200
    user = await provider.server.users.get("corp:248289761001")
    assert user is not None
    assert (user.name, user.source) == ("Alice", "oidc")
    (requested,) = upstream.requests
    assert requested["scope"] == "openid profile"
    assert requested["code_challenge_method"] == "S256"
    assert len(requested["nonce"]) >= 43
    assert (await browser.authorize()).status == 303, "signed in, and consent is remembered"


async def test_nothing_readable_travels_in_the_state(
    provider: Provider, upstream: OpenIdServer
) -> None:
    await connect(provider, upstream)
    one = await Browser(provider).authorize()
    state = query_of(one.headers["Location"])["state"][0]
    other = await Browser(provider).authorize()
    assert query_of(other.headers["Location"])["state"][0] != state
    assert "app.example" not in state
    assert not await provider.store.records.list_records("session")


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another client"},
        {"aud": [CLIENT_ID, "another client"]},
        {"azp": "another client"},
        {"nonce": "another nonce"},
        {"nonce": None},
        {"exp": 1_000_000 - 61},
        {"exp": None},
        {"iat": None},
        {"iat": 1_000_000 + 61},
        {"nbf": 1_000_000 + 61},
        {"nbf": "tomorrow"},
        {"sub": None},
        {"sub": 7},
        {"sub": "x" * 300},
    ],
)
async def test_an_id_token_that_does_not_hold_signs_no_user_in(
    provider: Provider, upstream: OpenIdServer, claims: dict[str, Any]
) -> None:
    await connect(provider, upstream)
    upstream.claims = claims
    browser = Browser(provider)
    reply = await go_and_return(browser)
    assert (reply.status, "Location" in reply.headers) == (502, False)
    assert not [name for name in browser.cookies if "session" in name]


async def test_an_id_token_of_another_key_or_algorithm_signs_no_user_in(
    provider: Provider, upstream: OpenIdServer
) -> None:
    await connect(provider, upstream)
    upstream.signing_key = make_key()
    assert (await go_and_return(Browser(provider))).status == 502
    upstream.signing_key = None
    assert (await go_and_return(Browser(provider))).status == 303
    await provider.server.store.clients.delete_client("web")
    await provider.server.users.delete("alice")
    provider.clock.now += 1
    await connect(provider, upstream, algorithms=["RS256"])
    assert (await go_and_return(Browser(provider))).status == 502


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ({"iss": "https://evil.example"}, 403),
        ({"iss": ""}, 403),
        ({"code": "", "error": "access_denied"}, 403),
        ({"code": "made-up"}, 502),
        ({"state": "made-up"}, 403),
        ({"state": ""}, 403),
    ],
)
async def test_a_response_that_is_not_as_it_should_be_signs_no_user_in(
    provider: Provider, upstream: OpenIdServer, response: dict[str, str], status: int
) -> None:
    await connect(provider, upstream)
    upstream.response = response
    browser = Browser(provider)
    reply = await go_and_return(browser)
    assert (reply.status, "Location" in reply.headers) == (status, False)
    assert not [name for name in browser.cookies if "session" in name]


async def test_a_response_is_of_no_use_in_another_browser_or_later(
    provider: Provider, upstream: OpenIdServer
) -> None:
    await connect(provider, upstream)
    attacker, victim = Browser(provider), Browser(provider)
    await victim.authorize()
    back = await go_there((await attacker.authorize()).headers["Location"])
    assert (await victim.get(back)).status == 403
    provider.clock.now += 601
    assert (await attacker.get(back)).status == 403


async def test_two_tabs_can_sign_in_at_once(provider: Provider, upstream: OpenIdServer) -> None:
    await connect(provider, upstream)
    browser = Browser(provider)
    one, other = [await browser.authorize(state=state) for state in ("one", "other")]
    backs = [await go_there(reply.headers["Location"]) for reply in (other, one)]
    cookies = dict(browser.cookies)
    for back in backs:
        browser.cookies |= cookies
        assert (await browser.get(back)).status == 303


async def test_an_upstream_provider_that_is_not_as_it_says_is_not_used(
    provider: Provider, upstream: OpenIdServer
) -> None:
    await connect(provider, upstream)
    upstream.discovery = {"issuer": "https://evil.example"}
    assert (await Browser(provider).authorize()).status == 502
    upstream.discovery = {"token_endpoint": "file:///etc/passwd"}
    provider.clock.now += 5
    assert (await Browser(provider).authorize()).status == 502
    upstream.discovery = {}
    assert (await Browser(provider).authorize()).status == 502, "not asked all the time"
    provider.clock.now += 5
    assert (await Browser(provider).authorize()).status == 303
    upstream.status = 500
    provider.clock.now += 3600
    assert (await Browser(provider).authorize()).status == 303, "what was found goes on"


async def sign_in(provider: Provider, upstream: OpenIdServer) -> tuple[Browser, str]:
    """A browser that has signed in at the upstream provider, and its user."""
    await connect(provider, upstream)
    browser = Browser(provider)
    await browser.get((await go_and_return(browser)).headers["Location"])
    return browser, "corp:248289761001"


async def test_a_deleted_user_of_the_upstream_provider_comes_back_as_another(
    provider: Provider, upstream: OpenIdServer
) -> None:
    browser, username = await sign_in(provider, upstream)
    assert await provider.server.users.delete(username) is not None
    assert (await browser.authorize()).status == 303, "has to sign in again"
    assert not await provider.store.records.list_records("session")
    provider.clock.now += 1
    upstream.now = provider.clock.now
    await go_and_return(browser)
    assert await provider.server.users.get(username) is not None


async def test_a_subject_can_be_any_claim_and_any_text(
    provider: Provider, upstream: OpenIdServer
) -> None:
    await connect(provider, upstream, subject_claim="email")
    upstream.claims = {"email": "älice:x@corp.example", "email_verified": True}
    await go_and_return(Browser(provider))
    users = [user.username for user in await provider.server.users.list_users()]
    assert "corp:%C3%A4lice%3Ax@corp.example" in users


async def test_no_password_of_ours_signs_an_upstream_user_in(
    provider: Provider, upstream: OpenIdServer
) -> None:
    await connect(provider, upstream)
    await go_and_return(Browser(provider))
    assert await provider.server.users.verify("corp:248289761001", "") is None
    assert "/authorize/sign-in" not in provider.endpoints.paths
    assert WEB.redirect_uris


BY_EMAIL = {"subject_claim": "email"}
MAIL = {"email": "Ceo@Corp.Example"}


@pytest.mark.parametrize(
    ("settings", "claims", "outcome"),
    [
        (BY_EMAIL, MAIL | {"email_verified": True}, "corp:ceo@corp.example"),
        (BY_EMAIL, MAIL | {"email_verified": "true"}, "corp:ceo@corp.example"),
        (BY_EMAIL, MAIL | {"email_verified": False}, "email_not_verified"),
        (BY_EMAIL, MAIL | {"email_verified": "false"}, "email_not_verified"),
        (BY_EMAIL, MAIL, "email_not_verified"),
        (BY_EMAIL | {"require_verified_email": False}, MAIL, "corp:ceo@corp.example"),
        (
            BY_EMAIL | {"require_verified_email": False},
            MAIL | {"email_verified": False},
            "email_not_verified",
        ),
        ({"allowed_domains": ["corp.example"]}, MAIL | {"email_verified": True}, "corp:1"),
        ({"allowed_domains": ["corp.example"]}, MAIL, "user_not_allowed"),
        (
            {"allowed_domains": ["corp.example"]},
            {"email": "x@evil-corp.example", "email_verified": True},
            "user_not_allowed",
        ),
        ({"allowed_domains": ["corp.example"]}, {"hd": "corp.example"}, "corp:1"),
        ({"allowed_domains": ["corp.example"]}, {}, "user_not_allowed"),
        ({"allowed_groups": ["ops"]}, {"groups": ["dev", "ops"]}, "corp:1"),
        ({"allowed_groups": ["ops"]}, {"groups": ["dev"]}, "user_not_allowed"),
        ({"allowed_groups": ["ops"]}, {"groups": {"ops": 1}}, "user_not_allowed"),
        ({"allowed_groups": ["ops"]}, {}, "user_not_allowed"),
        ({"allowed_groups": ["ops"], "groups_claim": "roles"}, {"roles": "ops"}, "corp:1"),
        ({"allowed_users": ["1", "2"]}, {}, "corp:1"),
        ({"allowed_users": ["2"]}, {}, "user_not_allowed"),
        (
            BY_EMAIL | {"allowed_users": ["CEO@corp.example"]},
            MAIL | {"email_verified": True},
            "corp:ceo@corp.example",
        ),
        (
            {"allowed_users": ["1"], "allowed_groups": ["ops"]},
            {"groups": ["dev"]},
            "user_not_allowed",
        ),
    ],
)
async def test_only_users_with_a_verified_address_and_in_every_list_sign_in(
    provider: Provider,
    upstream: OpenIdServer,
    settings: dict[str, Any],
    claims: dict[str, Any],
    outcome: str,
) -> None:
    await connect(provider, upstream, **settings)
    upstream.subject, upstream.claims = "1", claims
    reply = await go_and_return(Browser(provider))
    assert reply.reason == ("" if reply.status == 303 else outcome)
    users = await provider.server.users.list_users()
    assert [user.username for user in users if ":" in user.username] == (
        [outcome] if ":" in outcome else []
    )


async def test_a_disabled_user_of_the_upstream_provider_is_not_let_in(
    provider: Provider, upstream: OpenIdServer
) -> None:
    browser, username = await sign_in(provider, upstream)
    assert await provider.server.users.disable(username) is not None
    reply = await go_and_return(browser)
    assert (reply.status, "Location" in reply.headers) == (403, False)
    assert b"This account is disabled." in reply.body
    assert not await provider.store.records.list_records("session")
    await provider.server.users.enable(username)
    assert (await go_and_return(browser)).status == 303
