"""What a store tells the process that revokes something through it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.stores.values import make_client, make_token

from gateway.oauth.models import Change, ClientChange, TokenChange, digest_token
from gateway.store import open_store


@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgresql"])
async def test_revocation_is_reported_before_its_response(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    reported: list[Change] = []
    url = f"sqlite:///{tmp_path}/store.db"
    if kind != "sqlite":
        url = request.getfixturevalue(f"empty_{kind}").url
    store = await open_store(url, on_change=reported.append)
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(ends=4_000_000_000.0), generation=7)
    assert await store.tokens.revoke_token(digest_token("unknown")) is None
    assert await store.clients.delete_client("nobody") is None
    assert await store.clients.set_client_rate_limit("nobody", None) is None
    assert reported == []
    assert await store.tokens.revoke_token(digest_token("token"))
    assert reported.pop() == TokenChange(digest_token("token"))
    for revoke in (
        store.tokens.revoke_client_tokens("shop"),
        store.clients.set_client_rate_limit("shop", None),
        store.clients.replace_client(make_client()),
        store.clients.delete_client("shop"),
    ):
        await revoke
        assert reported.pop() == ClientChange("shop")
    assert reported == []
    await store.close()
