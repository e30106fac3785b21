"""Users: what may be added, and that all that is theirs goes with them."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

import pytest
from support import settings
from support.clients.browser import PASSWORD, WEB, Browser, open_door, redeem
from support.provider import FORM, REGISTER, Provider, basic

from gateway.oauth.accounts import AccountError
from gateway.oauth.users.directory import UserExistsError
from gateway.oauth.users.tokens import UserTokens

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


async def test_a_password_is_kept_as_an_argon2id_hash_only(provider: Provider) -> None:
    user = await provider.server.users.add("alice", PASSWORD, name="Alice")
    assert user.password_hash.startswith("$argon2id$")
    assert PASSWORD not in repr(user)
    assert "argon2id" not in repr(user)
    assert await provider.server.users.get("alice") == user
    assert await provider.server.users.verify("alice", PASSWORD) == user
    assert await provider.server.users.verify("alice", PASSWORD + "x") is None
    assert await provider.server.users.verify("bob", PASSWORD) is None


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("", PASSWORD),
        ("a:b", PASSWORD),
        ("a b", PASSWORD),
        ("älice", PASSWORD),
        ("a" * 256, PASSWORD),
        ("alice", "short"),
        ("alice", "x" * 257),
    ],
)
async def test_what_can_not_be_a_user_is_refused(
    provider: Provider, username: str, password: str
) -> None:
    with pytest.raises(AccountError):
        await provider.server.users.add(username, password)
    assert not await provider.server.users.list_users()


async def test_a_name_is_given_once_to_users_and_clients_together(provider: Provider) -> None:
    users = provider.server.users
    await users.add("alice", PASSWORD)
    with pytest.raises(UserExistsError):
        await users.add("alice", PASSWORD)
    await provider.server.register_client(client_id="shop", client_secret="secret")
    with pytest.raises(UserExistsError):
        await users.add("shop", PASSWORD)
    reply = await provider.fetch("POST", "/createClient", {**REGISTER, "client_id": "alice"})
    assert reply.error == (409, "client_already_exists")


async def test_users_are_listed_by_name(provider: Provider) -> None:
    for name in ("carol", "alice", "bob"):
        await provider.server.users.add(name, PASSWORD)
    listed = await provider.server.users.list_users(limit=2)
    assert [user.username for user in listed] == ["alice", "bob"]
    listed = await provider.server.users.list_users(after="bob")
    assert [user.username for user in listed] == ["carol"]


async def open_all(provider: Provider) -> tuple[Browser, dict[str, str]]:
    """A browser of alice, and the credentials of a client that may refresh and exchange."""
    metadata = replace(WEB, grant_types=("authorization_code", "refresh_token", EXCHANGE))
    await open_door(
        provider, metadata=metadata, refresh=settings.refresh(strategy="rotating"),
        grant_types=("authorization_code", "refresh_token", EXCHANGE),
    )  # fmt: skip
    return Browser(provider), {**FORM, **basic("web", "secret")}


async def test_all_that_is_a_users_goes_with_the_user(provider: Provider) -> None:
    browser, who = await open_all(provider)
    given = (await redeem(provider, await browser.code())).json
    form = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    refreshed = (await provider.fetch("POST", "/token", who, urlencode(form))).json
    form = {
        "grant_type": EXCHANGE,
        "subject_token": given["access_token"],
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    exchanged = (await provider.fetch("POST", "/token", who, urlencode(form))).json
    tokens = [one["access_token"] for one in (given, refreshed, exchanged)]
    await provider.server.users.add("bob", PASSWORD)
    other = Browser(provider)
    page = await other.sign_in(await other.authorize(), username="bob")
    assert page.status == 200

    assert await provider.server.users.delete("alice") is not None
    provider.validator.forget_all()
    for token in tokens:
        reply = await provider.fetch("GET", "/validate", {"Authorization": f"Bearer {token}"})
        assert reply.status == 401
    form = {"grant_type": "refresh_token", "refresh_token": refreshed["refresh_token"]}
    reply = await provider.fetch("POST", "/token", who, urlencode(form))
    assert reply.error == (400, "invalid_grant")
    assert b'name="password"' in (await browser.authorize()).body
    for kind in ("consent", "user-token"):
        assert not await provider.store.records.list_records(kind)
    assert [r.owner for r in await provider.store.records.list_records("session")] == ["user:bob"]
    assert await provider.server.users.delete("alice") is None
    assert (await other.authorize()).status == 200


async def test_a_disabled_user_can_not_sign_in_and_has_no_tokens_until_enabled(
    provider: Provider,
) -> None:
    browser, who = await open_all(provider)
    code = await browser.code()
    given = (await redeem(provider, await browser.code())).json
    assert await provider.server.users.disable("alice") == 1
    provider.validator.forget_all()
    bearer = {"Authorization": f"Bearer {given['access_token']}"}
    assert (await provider.fetch("GET", "/validate", bearer)).status == 401
    form = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    assert (await provider.fetch("POST", "/token", who, urlencode(form))).status == 400
    assert (await redeem(provider, code)).error == (400, "invalid_grant")
    page = await browser.authorize()
    assert b'name="password"' in page.body, "the session is over"
    assert (await browser.sign_in(page)).status == 403
    assert await provider.server.users.verify("alice", PASSWORD) is None
    assert await provider.store.records.list_records("consent"), "kept, unlike tokens"

    assert await provider.server.users.enable("alice") is not None
    assert (await redeem(provider, code)).error == (400, "invalid_grant")
    assert (await browser.sign_in(await browser.authorize())).status in {200, 303}
    assert (await provider.fetch("GET", "/validate", bearer)).status == 401
    for change in (provider.server.users.disable, provider.server.users.enable):
        assert await change("nemo") is None


@pytest.mark.parametrize("verb", ["delete", "disable"])
async def test_a_token_that_is_made_while_its_user_goes_does_not_stay(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    enter = UserTokens.enter

    async def enter_late(self: UserTokens, username: str, token: object) -> None:
        await getattr(provider.server.users, verb)("alice")
        await enter(self, username, token)  # type: ignore[arg-type]

    monkeypatch.setattr(UserTokens, "enter", enter_late)
    assert (await redeem(provider, code)).error == (400, "invalid_grant")
    assert not await provider.store.records.list_records("user-token")
    census = await provider.store.purge(tokens_before=float("inf"), clients_before=0)
    assert census.tokens == 0, "no token is left"


async def test_a_client_in_the_name_of_itself_is_in_no_users_index(provider: Provider) -> None:
    await provider.server.register_client(client_id="shop", client_secret="secret")
    await provider.issue_token("shop", "secret", None, "192.0.2.1")
    assert not await provider.store.records.list_records("user-token")
