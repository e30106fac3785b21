"""Sessions of the console: how they begin, and which of them end."""

from __future__ import annotations

import pytest
from support.clients.console_accounts import PASSWORD
from support.clients.console_visitor import Visitor
from support.running_gateway import RunningGateway

from gateway.oauth.credentials import SecretHasher


async def test_sign_in_ends_the_session_that_the_browser_had(
    gateway: RunningGateway, alice: Visitor
) -> None:
    """As where two tabs have shown the form."""
    visitor = Visitor(gateway)
    await visitor.get("/console/sign-in")
    form = dict(visitor.jar)
    assert (await visitor.post("/console/sign-in", name="alice", password=PASSWORD))[0] == 303
    first = dict(visitor.jar)
    visitor.jar |= form
    assert (await visitor.post("/console/sign-in", name="alice", password=PASSWORD))[0] == 303
    await visitor.get("/console")
    assert visitor.jar["gateway_console"] != first["gateway_console"]
    visitor.jar = first
    await visitor.get("/console", 303)
    await alice.get("/console")


async def test_password_is_hashed_in_the_turn_of_its_address(
    gateway: RunningGateway, alice: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[str] = []
    verify = SecretHasher.verify

    async def keep_source(
        hasher: SecretHasher, secret: str, secret_hash: str | None, *, source: str = ""
    ) -> bool:
        sources.append(source)
        return await verify(hasher, secret, secret_hash, source=source)

    monkeypatch.setattr(SecretHasher, "verify", keep_source)
    assert await Visitor(gateway).sign_in("alice", "wrong") == 401
    assert sources == ["127.0.0.1"]
