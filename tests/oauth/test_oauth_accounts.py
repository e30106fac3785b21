"""Accounts and sessions of both kinds, as stores of earlier versions hold them."""

from __future__ import annotations

import msgspec
import pytest
from support.provider import Provider

from gateway.admin.accounts import Accounts, open_accounts
from gateway.oauth.accounts import AccountError
from gateway.oauth.models import Record, StoreUnavailableError, digest_token


@pytest.fixture
def admin(provider: Provider) -> Accounts:
    return open_accounts(
        provider.store.records, provider.hasher, provider.clock,
        idle_s=60.0, session_s=600.0, retention_s=600.0,
    )  # fmt: skip


async def put(provider: Provider, kind: str, key: str, owner: str, **members: object) -> None:
    value = msgspec.json.encode(members)
    await provider.store.records.put_record(Record(kind, key, owner, value, None))


async def test_one_policy_of_passwords_is_for_new_ones_only(
    provider: Provider, admin: Accounts
) -> None:
    users = provider.server.users
    for password in ("only-eleven", "x" * 257):
        with pytest.raises(AccountError, match="12 to 256 characters"):
            await users.add("alice", password)
        with pytest.raises(AccountError, match="12 to 256 characters"):
            await admin.users.add("alice", password, "viewer")
    kept = await provider.hasher.hash("8 chars!")
    await put(
        provider, "user", "alice", "user:alice",
        username="alice", created_at=1.0, generation=7, password_hash=kept, name="",
    )  # fmt: skip
    await put(
        provider, "admin-user", "root", "admin:root",
        name="root", role="operator", password_hash=kept, created_at=1.0,
    )  # fmt: skip
    assert await users.verify("alice", "8 chars!") is not None
    assert await admin.users.verify("root", "8 chars!") is not None
    assert await admin.users.verify("root", "8 chars?") is None


async def test_sessions_of_an_earlier_version_go_on_or_are_over(
    provider: Provider, admin: Accounts
) -> None:
    user = await provider.server.users.add("alice", "twelve characters")
    operator = await admin.users.add("root", "twelve characters", "operator")
    await put(
        provider, "session", digest_token("s").hex(), "user:alice",
        username="alice", generation=user.generation, signed_in_at=provider.clock.now,
    )  # fmt: skip
    sessions = provider.server.users.sessions(ttl_s=60.0, wall_clock=provider.clock)
    session = await sessions.find("s")
    assert session is not None
    assert session.user == user
    await put(
        provider, "admin-session", digest_token("a").hex(), "admin:root",
        user="root", created_at=provider.clock.now, used_at=provider.clock.now,
    )  # fmt: skip
    assert await admin.users.sessions.find("a") is None
    begun = await admin.users.sessions.begin(operator)
    assert await admin.users.sessions.find(begun.secret) == begun


async def test_session_of_an_admin_user_is_over_with_the_password_before_it_is_removed(
    provider: Provider, admin: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process ends in between."""
    users = admin.users

    async def end(name: str) -> int:
        raise StoreUnavailableError("the process ends here")

    monkeypatch.setattr(users.sessions, "end_all", end)
    begun = await users.sessions.begin(await users.add("root", "twelve characters", "viewer"))
    with pytest.raises(StoreUnavailableError):
        await users.set_password("root", "another password")
    assert await users.sessions.find(begun.secret) is None
    user = await users.verify("root", "another password")
    assert user is not None
    begun = await users.sessions.begin(user)
    await users.set_role("root", "operator")
    assert await users.sessions.find(begun.secret) is not None
    with pytest.raises(StoreUnavailableError):
        await users.delete("root")
    provider.clock.now += 1
    await users.add("root", "twelve characters", "viewer")
    assert await users.sessions.find(begun.secret) is None, "of an earlier user of the name"


async def test_only_use_keeps_a_session_from_ending_early(
    provider: Provider, admin: Accounts
) -> None:
    sessions = admin.users.sessions
    begun = await sessions.begin(await admin.users.add("root", "twelve characters", "viewer"))
    for _ in range(3):
        provider.clock.now += 40
        assert await sessions.find(begun.secret) is not None
    provider.clock.now += 40
    assert await sessions.find(begun.secret, is_use=False) is not None
    provider.clock.now += 30
    assert await sessions.find(begun.secret) is None


async def test_a_session_that_begins_while_its_user_is_disabled_is_none(
    provider: Provider, admin: Accounts
) -> None:
    user = await admin.users.add("root", "twelve characters", "operator")
    await admin.users.disable("root")
    session = await admin.users.sessions.begin(user)
    assert await admin.users.sessions.find(session.secret) is None
    await admin.users.enable("root")
    assert await admin.users.sessions.find(session.secret) is None, "it is over for good"
    again = await admin.users.sessions.begin(await admin.users.find("root"))
    await admin.users.enable("root")
    assert await admin.users.sessions.find(again.secret), "it was enabled"


@pytest.mark.parametrize("verb", ["disable", "revoke"])
async def test_a_token_that_is_rotated_meanwhile_is_disabled_or_revoked_all_the_same(
    provider: Provider, admin: Accounts, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    tokens = admin.tokens
    old, _ = await tokens.create("ci", "operator", ttl_s=None)
    records = provider.store.records
    swap = records.swap_record

    async def swap_late(before: Record, after: Record) -> bool:
        if before.kind == "admin-token-name":
            monkeypatch.undo()
            await getattr(tokens, verb)("ci")
        return await swap(before, after)

    monkeypatch.setattr(records, "swap_record", swap_late)
    if verb == "revoke":
        with pytest.raises(AccountError, match="concurrently"):
            await tokens.rotate("ci")
        assert not await tokens.list()
    else:
        new, token = await tokens.rotate("ci")
        assert token.disabled_at is not None
        assert [await tokens.find(value) for value in (old, new)] == [None, None]
        await tokens.enable("ci")
        assert await tokens.find(new) is not None


async def test_a_token_that_is_rotated_while_it_is_revoked_is_gone(
    provider: Provider, admin: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin.tokens.create("ci", "operator", ttl_s=None)
    records = provider.store.records
    delete = records.delete_record

    async def delete_late(kind: str, key: str) -> bool:
        monkeypatch.undo()
        await admin.tokens.rotate("ci")
        return await delete(kind, key)

    monkeypatch.setattr(records, "delete_record", delete_late)
    await admin.tokens.revoke("ci")
    assert not await admin.tokens.list()
    await admin.tokens.create("ci", "viewer", ttl_s=None)


async def test_token_whose_creation_the_store_broke_off_can_be_created_again_and_revoked(
    provider: Provider, admin: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = provider.store.records
    add, added = records.add_record, list[str]()

    async def break_off(record: Record) -> bool:
        added.append(record.kind)
        if len(added) == 2:
            raise StoreUnavailableError("gone")
        return await add(record)

    with monkeypatch.context() as broken:
        broken.setattr(records, "add_record", break_off)
        with pytest.raises(StoreUnavailableError):
            await admin.tokens.create("ci", "operator", ttl_s=None)
    value, _ = await admin.tokens.create("ci", "viewer", ttl_s=None)
    found = await admin.tokens.find(value)
    assert found is not None
    assert found.role == "viewer"
    await admin.tokens.revoke("ci")
    assert await admin.tokens.find(value) is None
    assert await admin.tokens.list() == []
