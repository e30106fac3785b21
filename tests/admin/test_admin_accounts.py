"""Accounts in the admin API and the console: admin users, API tokens, users of the provider."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from support.clients.console_accounts import PASSWORD, add_admin
from support.clients.console_visitor import Visitor
from support.running_gateway import ADMIN_TOKEN, RunningGateway, make_config

OTHER_PASSWORD = "another horse, another staple"
ADMINS, TOKENS, USERS = "/api/v1/admins", "/api/v1/admin-tokens", "/api/v1/users"


async def call(gateway: RunningGateway, token: str, method: str, path: str) -> int:
    status, _ = await gateway.call_api(method, path, Authorization=f"Bearer {token}")
    return status


async def actions(gateway: RunningGateway) -> list[tuple[str, str, str]]:
    """What the audit log has, the oldest first, but for sessions."""
    _, log = await gateway.call_api("GET", "/api/v1/audit")
    entries = [(one["action"], one["target"], one["detail"]) for one in log["entries"]]
    return [entry for entry in reversed(entries) if not entry[0].startswith("session.")]


async def test_admin_user_is_created_changed_disabled_enabled_and_deleted_by_the_api(
    gateway: RunningGateway,
) -> None:
    body = {"name": "bob@corp", "password": PASSWORD, "role": "viewer"}
    status, bob = await gateway.call_api("POST", ADMINS, body)
    assert (status, sorted(bob)) == (201, ["created_at", "name", "role"])
    assert await gateway.call_api("GET", ADMINS) == (200, {"admins": [bob]})
    one = f"{ADMINS}/bob%40corp"
    assert await gateway.call_api("GET", one) == (200, bob)
    visitor = Visitor(gateway)
    assert await visitor.sign_in("bob@corp") == 303
    status, changed = await gateway.call_api("PATCH", one, {"role": "operator"})
    assert (status, changed["role"]) == (200, "operator")
    # A colleague, since the last operator can't be disabled.
    await gateway.call_api("POST", ADMINS, {"name": "carol", "password": PASSWORD})
    status, disabled = await gateway.call_api("POST", f"{one}/disable")
    assert (status, disabled["disabled_at"] > 0) == (200, True)
    assert (await visitor.fetch("GET", "/console"))[0] == 303, "the session is over"
    assert await visitor.sign_in("bob@corp") == 401
    status, enabled = await gateway.call_api("POST", f"{one}/enable")
    assert (status, "disabled_at" in enabled) == (200, False)
    assert await visitor.sign_in("bob@corp") == 303
    assert (await gateway.call_api("PUT", f"{one}/password", {"password": OTHER_PASSWORD}))[
        0
    ] == 200
    assert (await visitor.fetch("GET", "/console"))[0] == 303, "the session is over"
    assert await visitor.sign_in("bob@corp", OTHER_PASSWORD) == 303
    assert await gateway.call_api("DELETE", one) == (200, {"name": "bob@corp"})
    assert (await visitor.fetch("GET", "/console"))[0] == 303
    assert (await gateway.call_api("GET", one))[0] == 404
    assert await actions(gateway) == [
        ("admin.add", "bob@corp", "viewer"),
        ("admin.role", "bob@corp", "operator"),
        ("admin.add", "carol", "operator"),
        ("admin.disable", "bob@corp", ""),
        ("admin.enable", "bob@corp", ""),
        ("admin.password", "bob@corp", ""),
        ("admin.delete", "bob@corp", ""),
    ]


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        (ADMINS, {"name": "x"}, (400, "password", None)),
        (ADMINS, {"name": "x y", "password": PASSWORD}, (400, "invalid_account", "name")),
        (ADMINS, {"name": "x", "password": "short"}, (400, "invalid_account", "password")),
        (ADMINS, {"name": "x", "password": PASSWORD, "role": "root"}, (400, "role", None)),
        (ADMINS, {"name": "bob", "password": PASSWORD}, (409, "account_already_exists", "name")),
        (TOKENS, {"name": "a b"}, (400, "invalid_account", "name")),
        (TOKENS, {"name": "ci", "expires_in": 0}, (400, "expires_in", None)),
        # No page could show when it ends.
        (TOKENS, {"name": "ci", "expires_in": 1e300}, (400, "expires_in", None)),
        (TOKENS, {"name": "taken"}, (409, "account_already_exists", "name")),
        (USERS, {"username": "a:b", "password": PASSWORD}, (400, "invalid_account", "username")),
        (USERS, {"username": "a", "password": PASSWORD, "name": "\n"},
         (400, "invalid_account", "name")),
        (USERS, {"username": "dave", "password": PASSWORD},
         (409, "user_already_exists", "username")),
    ],
)  # fmt: skip
async def test_account_that_can_not_be_is_not_created_and_the_member_is_named(
    gateway: RunningGateway, path: str, body: dict[str, str], problem: tuple[int, str, str | None]
) -> None:
    await gateway.call_api("POST", ADMINS, {"name": "bob", "password": PASSWORD})
    await gateway.call_api("POST", TOKENS, {"name": "taken"})
    await gateway.call_api("POST", USERS, {"username": "dave", "password": PASSWORD})
    before = await gateway.call_api("GET", path)
    status, found = await gateway.call_api("POST", path, body)
    assert (status, found["reason"], found.get("member")) == problem
    assert await gateway.call_api("GET", path) == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None), ("PATCH", "", {"role": "viewer", "name": "x"}), ("DELETE", "", None),
        ("PUT", "/password", {"password": PASSWORD}), ("POST", "/disable", None),
        ("POST", "/enable", None), ("POST", "/rotate", None),
    ],
)  # fmt: skip
async def test_account_that_is_not_there_is_404_by_name(
    gateway: RunningGateway, method: str, path: str, body: dict[str, str] | None
) -> None:
    for kind, operations in (
        (ADMINS, {"", "/password", "/disable", "/enable"}),
        (TOKENS, {"", "/rotate", "/disable", "/enable"}),
        (USERS, {"", "/password", "/disable", "/enable"}),
    ):
        if path not in operations or (kind == TOKENS and method == "PATCH"):
            continue
        if method == "PATCH":
            body = {"role": "viewer"} if kind == ADMINS else {"name": "x"}
        status, problem = await gateway.call_api(method, f"{kind}/nemo{path}", body)
        assert (status, problem["reason"]) == (404, "no_such_account")
        assert "'nemo'" in problem["detail"]
    assert await actions(gateway) == []


async def test_last_operator_is_neither_deleted_disabled_nor_made_a_viewer(
    gateway: RunningGateway,
) -> None:
    for name, role in (("alice", "operator"), ("bob", "viewer"), ("carol", "operator")):
        await gateway.call_api("POST", ADMINS, {"name": name, "password": PASSWORD, "role": role})
    assert (await gateway.call_api("POST", f"{ADMINS}/carol/disable"))[0] == 200
    one = f"{ADMINS}/alice"
    for method, path, body in (
        ("DELETE", one, None), ("POST", f"{one}/disable", None),
        ("PATCH", one, {"role": "viewer"}),
    ):  # fmt: skip
        status, problem = await gateway.call_api(method, path, body)
        assert (status, problem["reason"]) == (409, "last_operator")
        assert "'alice' is the last operator" in problem["detail"]
    _, alice = await gateway.call_api("GET", one)
    assert (alice["role"], "disabled_at" in alice) == ("operator", False)
    # What takes nothing away is done, and so is anything once there is another one.
    assert (await gateway.call_api("PATCH", one, {"role": "operator"}))[0] == 200
    assert (await gateway.call_api("DELETE", f"{ADMINS}/bob"))[0] == 200
    assert (await gateway.call_api("DELETE", f"{ADMINS}/carol"))[0] == 200
    await gateway.call_api("POST", ADMINS, {"name": "dave", "password": PASSWORD})
    assert (await gateway.call_api("DELETE", one))[0] == 200


async def test_two_operators_who_disable_each_other_at_once_leave_one(
    gateway: RunningGateway,
) -> None:
    for round_ in range(5):
        names = [f"a{round_}", f"b{round_}"]
        for name in names:
            await gateway.call_api("POST", ADMINS, {"name": name, "password": PASSWORD})
        _, listed = await gateway.call_api("GET", ADMINS)
        for one in listed["admins"]:
            if one["name"] not in names:
                await gateway.call_api("DELETE", f"{ADMINS}/{one['name']}")
        await asyncio.gather(
            *(gateway.call_api("POST", f"{ADMINS}/{name}/disable") for name in names)
        )
        _, listed = await gateway.call_api("GET", ADMINS)
        assert [one for one in listed["admins"] if "disabled_at" not in one]


async def test_api_token_is_created_rotated_disabled_enabled_and_revoked(
    gateway: RunningGateway,
) -> None:
    status, made = await gateway.call_api("POST", TOKENS, {"name": "ci", "expires_in": 3600})
    assert (status, made["role"], made["expires_at"] - made["created_at"]) == (201, "viewer", 3600)
    value = made.pop("token")
    assert await gateway.call_api("GET", TOKENS) == (200, {"tokens": [made]})
    one = f"{TOKENS}/ci"
    assert await gateway.call_api("GET", one) == (200, made)
    assert await call(gateway, value, "GET", "/api/v1/routes") == 200
    assert await call(gateway, value, "DELETE", one) == 403, "it is a viewer's"
    status, disabled = await gateway.call_api("POST", f"{one}/disable")
    assert (status, disabled["disabled_at"] > 0) == (200, True)
    assert await call(gateway, value, "GET", "/api/v1/routes") == 401
    assert (await gateway.call_api("POST", f"{one}/enable"))[0] == 200
    assert await call(gateway, value, "GET", "/api/v1/routes") == 200
    status, rotated = await gateway.call_api("POST", f"{one}/rotate")
    assert (status, rotated["expires_at"] - rotated["created_at"]) == (200, 3600)
    for token, expected in ((value, 401), (rotated["token"], 200)):
        assert await call(gateway, token, "GET", "/api/v1/routes") == expected
    # A disabled token stays so when it gets another value.
    await gateway.call_api("POST", f"{one}/disable")
    _, again = await gateway.call_api("POST", f"{one}/rotate")
    assert await call(gateway, again["token"], "GET", "/api/v1/routes") == 401
    assert await gateway.call_api("DELETE", one) == (200, {"name": "ci"})
    assert await gateway.call_api("GET", TOKENS) == (200, {"tokens": []})
    _, for_ever = await gateway.call_api("POST", TOKENS, {"name": "ci", "expires_in": None})
    assert for_ever["expires_at"] == 0
    done = [action for action, target, _ in await actions(gateway) if target == "ci"]
    assert done == [
        f"admin.token.{verb}"
        for verb in ("create", "disable", "enable", "rotate", "disable", "rotate", "revoke",
                     "create")
    ]  # fmt: skip


async def test_user_is_created_renamed_disabled_enabled_and_deleted(
    gateway: RunningGateway,
) -> None:
    body = {"username": "a/b", "password": PASSWORD, "name": "Alice"}
    status, user = await gateway.call_api("POST", USERS, body)
    assert (status, user["source"], user["name"]) == (201, "store", "Alice")
    await gateway.call_api("POST", USERS, {"username": "zoe", "password": PASSWORD})
    status, page = await gateway.call_api("GET", f"{USERS}?limit=1")
    assert (page["users"], page["next"]) == ([user], "a/b")
    _, rest = await gateway.call_api("GET", f"{USERS}?after=a/b")
    assert ([one["username"] for one in rest["users"]], rest["next"]) == (["zoe"], None)
    one = f"{USERS}/a%2Fb"
    _, renamed = await gateway.call_api("PATCH", one, {"name": "Alice B."})
    assert renamed["name"] == "Alice B."
    new = {"password": OTHER_PASSWORD, "revoke_tokens": True}
    assert (await gateway.call_api("PUT", f"{one}/password", new))[0] == 200
    status, revoked = await gateway.call_api("POST", f"{one}/disable")
    assert (status, revoked) == (200, {"username": "a/b", "tokens_revoked": 0})
    assert (await gateway.call_api("GET", one))[1]["disabled_at"] > 0
    status, enabled = await gateway.call_api("POST", f"{one}/enable")
    assert (status, "disabled_at" in enabled) == (200, False)
    assert (await gateway.call_api("DELETE", one))[0] == 200
    assert await actions(gateway) == [
        ("user.create", "a/b", ""),
        ("user.create", "zoe", ""),
        ("user.update", "a/b", ""),
        ("user.password", "a/b", "and tokens revoked"),
        ("user.disable", "a/b", "0 live tokens revoked"),
        ("user.enable", "a/b", ""),
        ("user.delete", "a/b", "0 live tokens revoked"),
    ]


async def test_console_creates_changes_disables_and_deletes_an_admin_user(
    gateway: RunningGateway, alice: Visitor
) -> None:
    await alice.get("/console/access/new-admin")
    form = {"name": "bob", "role": "viewer", "password": PASSWORD, "repeated": PASSWORD}
    for wrong, field, text in (
        ({"name": "b b"}, "name", "unlike &#39;b b&#39;"),
        ({"name": "alice"}, "name", "already"),
        ({"role": "root"}, "role", "Unknown role &#39;root&#39; (known: viewer, operator)"),
        ({"password": "short", "repeated": "short"}, "password", "this one has 5"),
        ({"repeated": "other"}, "repeated", "The two passwords differ."),
    ):
        status, page = await alice.post("/console/access/admins", **form | wrong)
        assert status in {400, 409}
        (shown,) = re.findall(rf'id="{field}-error">([^<]+)<', page)
        assert text in shown
        assert PASSWORD not in page
    assert (await alice.post("/console/access/admins", **form))[0] == 303
    assert "The account is created." in await alice.get(alice.headers["Location"])
    one = "/console/access/admins/bob"
    assert (await alice.post(f"{one}/role", role="operator"))[0] == 303
    new = {"password": OTHER_PASSWORD, "repeated": OTHER_PASSWORD}
    assert (await alice.post(f"{one}/password", **new))[0] == 303
    assert (await alice.post(f"{one}/disable"))[0] == 303
    assert "disabled" in await alice.get("/console/access")
    assert "Enable" in await alice.get(one)
    assert (await alice.post(f"{one}/enable"))[0] == 303
    assert await Visitor(gateway).sign_in("bob", OTHER_PASSWORD) == 303
    assert "All sessions of this user" in await alice.get(f"{one}/delete")
    assert (await alice.post(f"{one}/delete"))[0] == 303
    assert "The account is deleted." in await alice.get(alice.headers["Location"])
    await alice.get(one, 404)
    await alice.get("/console/access")
    assert (await alice.post(f"{one}/delete"))[0] == 404
    done = [action for action, target, _ in await actions(gateway) if target == "bob"]
    assert done == ["admin.add", "admin.role", "admin.password", "admin.disable", "admin.enable",
                    "admin.delete"]  # fmt: skip


async def test_console_keeps_the_last_operator_and_says_so(
    gateway: RunningGateway, alice: Visitor
) -> None:
    one = "/console/access/admins/alice"
    assert "This is you: you will be signed out." in await alice.get(f"{one}/delete")
    for path, form in (("delete", {}), ("disable", {}), ("role", {"role": "viewer"})):
        status, page = await alice.post(f"{one}/{path}", **form)
        assert status == 409
        (text,) = re.findall(r'role="alert">([^<]+)<', page)
        assert text.startswith("&#39;alice&#39; is the last operator who can sign in.")
    assert "operator" in await alice.get("/console/access"), "still signed in"


async def test_console_shows_a_token_once_rotates_and_revokes_it(
    gateway: RunningGateway, alice: Visitor
) -> None:
    await alice.get("/console/access/new-token")
    form = {"name": "ci", "role": "operator", "lifetime": "30"}
    for wrong, field in (({"lifetime": "31"}, "lifetime"), ({"name": "-"}, "name")):
        status, page = await alice.post("/console/access/tokens", **form | wrong)
        assert (status, f'id="{field}-error"' in page) == (400, True)
    status, page = await alice.post("/console/access/tokens", **form)
    (value,) = re.findall(r'id="value"[^>]*>([^<]+)<', page)
    assert (status, await call(gateway, value, "GET", TOKENS)) == (200, 200)
    one = "/console/access/tokens/ci"
    assert value not in await alice.get(one)
    assert (await alice.post(f"{one}/disable"))[0] == 303
    assert await call(gateway, value, "GET", TOKENS) == 401
    assert (await alice.post(f"{one}/enable"))[0] == 303
    status, page = await alice.post(f"{one}/rotate")
    (rotated,) = re.findall(r'id="value"[^>]*>([^<]+)<', page)
    assert [await call(gateway, one, "GET", TOKENS) for one in (value, rotated)] == [401, 200]
    assert "Requests that show it get 401" in await alice.get(f"{one}/delete")
    assert (await alice.post(f"{one}/delete"))[0] == 303
    assert "The token is revoked." in await alice.get(alice.headers["Location"])
    assert await call(gateway, rotated, "GET", TOKENS) == 401
    assert (await alice.post(f"{one}/rotate"))[0] == 404


async def test_console_looks_after_the_users_of_the_provider(
    gateway: RunningGateway, alice: Visitor
) -> None:
    await alice.get("/console/access/new-user")
    form = {"username": "<b>", "name": "Bee", "password": PASSWORD, "repeated": PASSWORD}
    for wrong, field in (
        ({"username": "a b"}, "username"), ({"name": "\x07"}, "name"),
        ({"password": "short", "repeated": "short"}, "password"), ({"repeated": ""}, "repeated"),
    ):  # fmt: skip
        status, page = await alice.post("/console/access/users", **form | wrong)
        assert (status, f'id="{field}-error"' in page) == (400, True)
        assert 'value="' in page
    assert (await alice.post("/console/access/users", **form))[0] == 303
    one = "/console/access/users/%3Cb%3E"
    assert "<b>" not in await alice.get(one)
    status, page = await alice.post(f"{one}/rename", name="x" * 201)
    assert (status, 'id="name-error"' in page) == (400, True)
    assert (await alice.post(f"{one}/rename", name="Bumblebee"))[0] == 303
    assert "Bumblebee" in await alice.get("/console/access")
    assert (await alice.post(f"{one}/password", password="short", repeated="short"))[0] == 400
    new = {"password": OTHER_PASSWORD, "repeated": OTHER_PASSWORD, "revoke_tokens": "on"}
    assert (await alice.post(f"{one}/password", **new))[0] == 303
    assert (await alice.post(f"{one}/disable"))[0] == 303
    assert "disabled" in await alice.get(one)
    assert (await alice.post(f"{one}/enable"))[0] == 303
    assert "consented" in await alice.get(f"{one}/delete")
    assert (await alice.post(f"{one}/delete"))[0] == 303
    await alice.get(one, 404)


async def test_viewer_and_forms_without_their_token_change_no_account(
    gateway: RunningGateway, alice: Visitor, tmp_path: Path
) -> None:
    await gateway.call_api("POST", TOKENS, {"name": "ci"})
    await gateway.call_api("POST", USERS, {"username": "carol", "password": PASSWORD})
    await add_admin(make_config(tmp_path), name="victor", role="viewer")
    before = await actions(gateway)
    victor = Visitor(gateway)
    assert await victor.sign_in("victor") == 303
    for path in ("admins", "tokens", "users"):
        form = {"name": "x", "username": "x", "role": "viewer", "lifetime": "",
                "password": PASSWORD, "repeated": PASSWORD}  # fmt: skip
        await victor.get("/console/access")
        assert (await victor.post(f"/console/access/{path}", **form))[0] == 403
        alice.token = "wrong"
        assert (await alice.post(f"/console/access/{path}", **form))[0] == 403
    for path in (
        "admins/alice/role", "admins/alice/password", "admins/alice/disable",
        "admins/alice/enable", "admins/alice/delete", "tokens/ci/rotate", "tokens/ci/disable",
        "tokens/ci/enable", "tokens/ci/delete", "users/carol/rename", "users/carol/password",
        "users/carol/disable", "users/carol/enable", "users/carol/delete",
    ):  # fmt: skip
        form = {"role": "viewer", "password": PASSWORD, "repeated": PASSWORD, "name": "x"}
        assert (await victor.post(f"/console/access/{path}", **form))[0] == 403, path
        assert (await alice.post(f"/console/access/{path}", **form))[0] == 403, path
    for path in ("admins/alice", "tokens/ci", "users/carol"):
        assert "Disable" not in await victor.get(f"/console/access/{path}")
    assert await actions(gateway) == before
    assert await call(gateway, ADMIN_TOKEN, "GET", ADMINS) == 200
