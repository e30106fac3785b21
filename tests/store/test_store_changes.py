"""What a store tells the process that revokes something through it."""

from __future__ import annotations

from pathlib import Path

from store_values import make_client, make_token

from gateway.oauth.models import Change, ClientChange, TokenChange, digest_token
from gateway.store import open_store


async def test_revocation_is_told_before_the_one_who_asked_hears_that_it_is_done(
    tmp_path: Path,
) -> None:
    told: list[Change] = []
    store = await open_store(f"sqlite:///{tmp_path}/store.db", on_change=told.append)
    await store.add_client(make_client())
    await store.add_token(make_token(), generation=7)
    assert await store.revoke_token(digest_token("unknown")) is None
    assert await store.delete_client("nobody") is None
    assert told == []
    assert await store.revoke_token(digest_token("token"))
    assert told.pop() == TokenChange(digest_token("token"))
    for revoke in (
        store.revoke_client_tokens("shop"),
        store.replace_client(make_client()),
        store.delete_client("shop"),
    ):
        await revoke
        assert told.pop() == ClientChange("shop")
    assert told == []
    await store.close()
