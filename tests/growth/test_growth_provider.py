"""What the provider does for one user or client costs no more for what others have, nor for what
was before: families of refresh tokens, sessions, tokens of other issuers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import settings
from support.growth import assert_constant, assert_linear, cost_of_await
from support.provider import Clock, Provider, open_provider
from support.refreshing import allow, begin, refresh, refresh_token, register

from gateway.metrics import Metrics
from gateway.oauth.external_issuers import ExternalTokens
from gateway.oauth.external_issuers.introspection import IntrospectionServers
from gateway.oauth.external_issuers.jwt import JwtIssuers
from gateway.oauth.keys.remote import RemoteKeys
from gateway.oauth.refresh.family import MAX_ACCESS_TOKENS
from gateway.oauth.token_cache import TokenCache


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    async with open_provider(tmp_path) as opened:
        allow(opened, reuse_grace_s=0)
        await register(opened)
        yield opened


async def cost_of_refresh(provider: Provider, value: str) -> tuple[int, str]:
    """What a refresh costs the event loop, and the refresh token that came of it."""
    replies = []

    async def work() -> None:
        replies.append(await refresh(provider, value))

    cost = await cost_of_await(work())
    assert replies[0].status == 200
    return cost, replies[0].json["refresh_token"]


async def test_refresh_costs_the_same_however_often_its_family_was_rotated(
    provider: Provider,
) -> None:
    value = refresh_token(await begin(provider.server))
    costs = {}
    # From the first time on that the family has all the access tokens that it may have.
    for number in range(4 * MAX_ACCESS_TOKENS + 1):
        cost, value = await cost_of_refresh(provider, value)
        costs[number] = cost
    assert_constant(costs[MAX_ACCESS_TOKENS + 5], costs[4 * MAX_ACCESS_TOKENS], slack=60)
    assert_linear(costs[10], costs[40])


async def test_refresh_costs_the_same_however_many_families_a_client_has(
    provider: Provider,
) -> None:
    costs = []
    for size in (20, 80):
        for number in range(size):
            await begin(provider.server, username=f"user-{size}-{number}")
        value = refresh_token(await begin(provider.server))
        _, value = await cost_of_refresh(provider, value)
        costs.append((await cost_of_refresh(provider, value))[0])
    assert_constant(*costs, slack=60)


async def test_end_of_all_families_of_a_user_is_in_proportion_to_them(provider: Provider) -> None:
    costs = []
    for size in (20, 80):
        for _ in range(size):
            await begin(provider.server)
            await begin(provider.server, username=f"other-{size}")
        tokens = provider.server.refresh_tokens
        costs.append(await cost_of_await(tokens.end_user("alice")))
    assert_linear(*costs)


async def test_sessions_of_others_cost_a_session_nothing(provider: Provider) -> None:
    users = provider.server.users
    for name in ("alice", "bob"):
        await users.add(name, "a long password")
    sessions = users.sessions(ttl_s=3600.0, wall_clock=provider.clock)
    alice, bob = await users.get("alice"), await users.get("bob")
    assert alice is not None
    assert bob is not None
    found, ended = [], []
    for size in (20, 80):
        for _ in range(size):
            await sessions.begin(bob)
        session = await sessions.begin(alice)
        found.append(await cost_of_await(sessions.find(session.secret)))
        ended.append(await cost_of_await(sessions.end_all("alice")))
        assert await sessions.find(session.secret) is None
    assert_constant(*found)
    assert_constant(*ended)


async def test_introspected_token_is_asked_for_once_however_many_are_cached() -> None:
    asked = 0

    async def post_form(url: str, form: object, headers: object) -> object:
        nonlocal asked
        asked += 1
        return {"active": True, "client_id": "erp"}

    class NoTokens:
        async def get_token(self, digest: bytes) -> None:
            return None

    costs: dict[str, list[int]] = {"miss": [], "hit": [], "servers": []}
    for size in (200, 800):
        clock = Clock()
        server = settings.introspection_server(
            name="legacy", endpoint="http://h", client_id="g", client_secret="p"
        )
        servers = IntrospectionServers([server], post_form, wall_clock=clock)
        issuers = JwtIssuers((), RemoteKeys(lambda url: post_form(url, {}, {})), wall_clock=clock)
        cache = TokenCache(
            NoTokens(), Metrics(), external=ExternalTokens(issuers, servers), clock=clock,
            wall_clock=clock,
        )  # fmt: skip
        for number in range(size):
            await cache.lookup(f"token-{number}")
        asked = 0
        costs["miss"].append(await cost_of_await(cache.lookup("another")))
        costs["hit"].append(await cost_of_await(cache.lookup("another")))
        assert asked == 1
        assert cache.cached("another") is not None
        many = IntrospectionServers([server] * (size // 50), _inactive, wall_clock=clock)
        costs["servers"].append(await cost_of_await(many.find("unknown")))
    assert_constant(*costs["miss"])
    assert_constant(*costs["hit"])
    assert_linear(*costs["servers"])


async def _inactive(url: str, form: object, headers: object) -> object:
    return {"active": False}
