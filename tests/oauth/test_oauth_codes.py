"""Authorization codes at the token endpoint, and what becomes of tokens given for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from support import settings
from support.clients.browser import REDIRECT, VERIFIER, WEB, Browser, open_door, redeem
from support.jose_values import make_key, make_proof
from support.provider import FORM, Provider, basic

from gateway.oauth.authorization.codes import AuthorizationCodes
from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.errors import InvalidGrantError
from gateway.oauth.models import AccessToken
from gateway.oauth.policy import ProtectedResource

PUBLIC = ClientMetadata(
    grant_types=("authorization_code",),
    redirect_uris=(REDIRECT,),
    token_endpoint_auth_method="none",
)
ROTATING = settings.refresh(strategy="rotating")


async def introspect(provider: Provider, token: str) -> dict[str, Any]:
    reply = await provider.fetch(
        "POST", "/introspect", {**FORM, **basic("web", "secret")}, urlencode({"token": token})
    )
    return reply.json


async def test_a_code_gives_a_token_that_speaks_for_the_user(provider: Provider) -> None:
    await open_door(provider)
    reply = await redeem(provider, await Browser(provider).code())
    assert reply.status == 200
    assert reply.headers["Cache-Control"] == "no-store"
    assert (reply.json["token_type"], reply.json["scope"]) == ("Bearer", "orders:read")
    assert "refresh_token" not in reply.json
    reported = await introspect(provider, reply.json["access_token"])
    assert (reported["sub"], reported["username"], reported["client_id"]) == (
        "alice",
        "alice",
        "web",
    )


async def test_a_jwt_for_a_code_names_the_user_as_its_subject(provider: Provider) -> None:
    await open_door(provider, metadata=replace(WEB, access_token_format="jwt"))
    token = (await redeem(provider, await Browser(provider).code())).json["access_token"]
    assert token.count(".") == 2
    assert (await introspect(provider, token))["sub"] == "alice"


async def test_a_public_client_redeems_its_code_by_the_verifier_alone(provider: Provider) -> None:
    await open_door(provider, metadata=PUBLIC)
    code = await Browser(provider).code()
    reply = await redeem(provider, code, who={}, client_id="web")
    assert reply.status == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "another-verifier-that-is-long-enough-0123456789"},
        {"code_verifier": "short"},
        {"redirect_uri": "https://app.example/other"},
        {"redirect_uri": None},
    ],
)
async def test_a_code_is_good_only_with_its_verifier_and_redirect_uri(
    provider: Provider, changes: dict[str, Any]
) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    assert (await redeem(provider, code, **changes)).error == (400, "invalid_grant")
    assert (await redeem(provider, code)).error == (400, "invalid_grant"), "there is one try"


@pytest.mark.parametrize("name", ["code", "code_verifier"])
async def test_what_is_missing_is_reported_and_costs_nothing(provider: Provider, name: str) -> None:
    missing = {} if name == "code" else {name: None}
    await open_door(provider)
    code = await Browser(provider).code()
    reply = await redeem(provider, "" if name == "code" else code, **missing)
    assert reply.error == (400, "invalid_request")
    assert (await redeem(provider, code)).status == 200


async def test_a_code_of_another_client_is_of_no_use_and_stays_good(provider: Provider) -> None:
    await open_door(provider)
    await provider.server.register_client(client_id="other", client_secret="secret", metadata=WEB)
    code = await Browser(provider).code()
    reply = await redeem(provider, code, who=basic("other", "secret"))
    assert reply.error == (400, "invalid_grant")
    assert (await redeem(provider, code)).status == 200


async def test_a_client_must_prove_who_it_is_to_redeem(provider: Provider) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    for who in (basic("web", "wrong"), {}):
        assert (await redeem(provider, code, who=who, client_id="web")).error[0] in {400, 401}
    assert (await redeem(provider, code)).status == 200


async def test_a_code_ends_after_a_minute(provider: Provider) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    provider.clock.now += 60
    assert (await redeem(provider, code)).error == (400, "invalid_grant")


async def test_a_made_up_code_is_not_valid(provider: Provider) -> None:
    await open_door(provider)
    for code in ("x", "\x00", "é" * 100):
        assert (await redeem(provider, code)).error == (400, "invalid_grant")


async def test_a_code_that_is_used_twice_takes_back_what_it_gave(provider: Provider) -> None:
    metadata = replace(WEB, grant_types=("authorization_code", "refresh_token"))
    await open_door(provider, metadata=metadata, refresh=ROTATING)
    code = await Browser(provider).code()
    given = (await redeem(provider, code)).json
    refresh = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    more = await provider.fetch(
        "POST", "/token", {**FORM, **basic("web", "secret")}, urlencode(refresh)
    )
    assert more.status == 200
    reply = await redeem(provider, code)
    assert (reply.error, reply.reason) == ((400, "invalid_grant"), "code_reused")
    for token in (given["access_token"], more.json["access_token"]):
        provider.validator.forget_all()
        assert await introspect(provider, token) == {"active": False}
    again = refresh | {"refresh_token": more.json["refresh_token"]}
    reply = await provider.fetch(
        "POST", "/token", {**FORM, **basic("web", "secret")}, urlencode(again)
    )
    assert reply.error == (400, "invalid_grant")


async def test_a_code_is_remembered_for_as_long_as_what_it_gave(provider: Provider) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    given = (await redeem(provider, code)).json["access_token"]
    provider.clock.now += 1800
    await redeem(provider, code)
    provider.validator.forget_all()
    assert await introspect(provider, given) == {"active": False}


async def test_of_many_that_show_a_code_at_once_at_most_one_is_served(provider: Provider) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    replies = await asyncio.gather(*(redeem(provider, code) for _ in range(8)))
    served = [reply for reply in replies if reply.status == 200]
    assert len(served) <= 1
    for reply in served:
        provider.validator.forget_all()
        assert await introspect(provider, reply.json["access_token"]) == {"active": False}
    assert not [
        record
        for record in await provider.store.records.list_records("user-token")
        if await provider.store.tokens.get_token(bytes.fromhex(record.key))
    ], "nothing of it is left"


async def test_of_many_processes_that_take_a_code_at_once_at_most_one_gets_it(
    provider: Provider,
) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    form = {"code_verifier": VERIFIER, "redirect_uri": REDIRECT}
    # Not by the endpoint, which serves a client at one address one by one.
    taken = await asyncio.gather(
        *(provider.server.codes.redeem(code, "web", form, {}) for _ in range(8)),
        return_exceptions=True,
    )
    refused = [one for one in taken if isinstance(one, InvalidGrantError)]
    assert len(refused) == 7


async def test_a_code_shown_while_it_is_being_served_gives_nothing(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    gave = AuthorizationCodes.gave
    given: list[AccessToken] = []

    async def gave_late(self: AuthorizationCodes, redemption: Any, token: Any, family: Any) -> None:
        given.append(token)
        monkeypatch.undo()
        assert (await redeem(provider, code)).error == (400, "invalid_grant")
        await gave(self, redemption, token, family)

    monkeypatch.setattr(AuthorizationCodes, "gave", gave_late)
    assert (await redeem(provider, code)).error == (400, "invalid_grant")
    assert await provider.store.tokens.get_token(given[0].digest) is None


async def test_a_refresh_token_comes_with_a_code_for_clients_registered_for_it(
    provider: Provider,
) -> None:
    metadata = replace(WEB, grant_types=("authorization_code", "refresh_token"))
    await open_door(provider, metadata=metadata, refresh=ROTATING)
    given = (await redeem(provider, await Browser(provider).code())).json
    form = urlencode({"grant_type": "refresh_token", "refresh_token": given["refresh_token"]})
    more = await provider.fetch("POST", "/token", {**FORM, **basic("web", "secret")}, form)
    assert (await introspect(provider, more.json["access_token"]))["sub"] == "alice"


async def test_a_token_is_for_what_was_allowed_or_for_some_of_it(provider: Provider) -> None:
    resources = (ProtectedResource("/a"), ProtectedResource("/b"))
    await open_door(provider, resources=resources)
    one, other = "http://gateway.test/a", "http://gateway.test/b"
    browser = Browser(provider)
    both = await redeem(provider, await browser.code(resource=[one, other]))
    assert (await introspect(provider, both.json["access_token"]))["aud"] == [one, other]
    some = await redeem(provider, await browser.code(resource=[one, other]), resource=other)
    assert (await introspect(provider, some.json["access_token"]))["aud"] == [other]
    more = await redeem(provider, await browser.code(resource=one), resource=other)
    assert more.error == (400, "invalid_target")


async def test_a_code_bound_to_a_key_needs_its_proof(provider: Provider) -> None:
    await open_door(provider)
    key, other = make_key(), make_key()
    jkt = key.thumbprint()
    url = "http://gateway.test/token"
    browser = Browser(provider)

    async def show(headers: dict[str, str]) -> Any:
        return await redeem(provider, await browser.code(dpop_jkt=jkt), headers=headers)

    proof = make_proof(key, "POST", url, provider.clock.now)
    assert (await show({"DPoP": proof})).json["token_type"] == "DPoP"
    assert (await show({})).error == (400, "invalid_grant")
    proof = make_proof(other, "POST", url, provider.clock.now)
    assert (await show({"DPoP": proof})).error == (400, "invalid_grant")


async def test_a_code_ends_with_its_client(provider: Provider) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    await provider.server.store.clients.delete_client("web")
    provider.clock.now += 1
    await provider.server.register_client(client_id="web", client_secret="secret", metadata=WEB)
    assert (await redeem(provider, code)).error == (400, "invalid_grant")


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "and made anew"])
async def test_a_code_ends_with_its_user(provider: Provider, again: bool) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    await provider.server.users.delete("alice")
    provider.clock.now += 1
    if again:
        await provider.server.users.add("alice", "somebody else's")
    assert (await redeem(provider, code)).error == (400, "invalid_grant")


async def test_codes_are_counted(provider: Provider) -> None:
    await open_door(provider)
    code = await Browser(provider).code()
    await redeem(provider, code)
    await redeem(provider, code)
    for result in ("issued", "redeemed", "replayed"):
        name = "gateway_authorization_codes_total"
        assert provider.metrics.registry.get_sample_value(name, {"result": result}) == 1
    count = provider.metrics.registry.get_sample_value
    assert count("gateway_sign_ins_total", {"result": "ok"}) == 1
