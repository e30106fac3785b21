"""`gateway.testing`: what the tests of an application need of a gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient
from support.embedded_config import config
from support.running_gateway import basic

from gateway.aiohttp import provider_app
from gateway.oauth.errors import InvalidTokenError
from gateway.testing import TemporaryGateway

Start = Callable[[web.Application], Awaitable[TestClient[web.Request, web.Application]]]


async def test_store_is_new_at_each_start_whatever_the_configuration_names(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump(config() | {"store": "redis://127.0.0.1:9/0"}))
    gateway = TemporaryGateway(file)
    for _ in range(2):
        async with gateway:
            assert await gateway.provider.store.clients.list_clients() == []
            token = await gateway.issue_token("shop")
            assert (await gateway.provider.validator.lookup(token)).token.client_id == "shop"
            where = Path(gateway.config.store.removeprefix("sqlite:///"))
            assert where.exists()
        assert not where.parent.exists()


async def test_token_has_what_it_is_given() -> None:
    async with TemporaryGateway() as gateway:
        value = await gateway.issue_token(
            "shop", scopes=["a"], subject="ann", audience=["b"], claims={"tier": "gold"}
        )
        token = (await gateway.provider.validator.lookup(value)).token
        assert (token.client_id, token.scopes) == ("shop", ("a",))
        assert token.claims == {"sub": "ann", "aud": ["b"], "tier": "gold"}
        again = await gateway.issue_token("shop", expires_in_s=-1)
        with pytest.raises(InvalidTokenError):
            await gateway.provider.validator.lookup(again)


async def test_clients_get_tokens_at_the_endpoint(aiohttp_client: Start) -> None:
    gateway = TemporaryGateway(config())
    client = await aiohttp_client(provider_app(gateway))
    await gateway.add_client("shop", "secret", scopes=["orders:write"])
    async with client.post(
        "/token",
        data={"grant_type": "client_credentials", "scope": "orders:write"},
        headers=basic("shop", "secret"),
    ) as response:
        assert (await response.json())["scope"] == "orders:write"
