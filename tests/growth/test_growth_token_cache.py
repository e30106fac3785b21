"""What is dropped, refused or over does not stop the event loop, however much of it there is.

Costs are counted: the lines that are executed, and the entries that are removed, in one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.deadlines import until
from support.growth import counted

from gateway.metrics import Metrics
from gateway.oauth.binding.dpop import DpopProofs
from gateway.oauth.errors import InvalidTokenError
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import AccessToken, ClientChange, TokenChange, digest_token
from gateway.oauth.token_cache import TokenCache


class Tokens:
    """A store of tokens that are all of one client, or unknown."""

    def __init__(self) -> None:
        self.is_held = False
        self.is_valid = True
        self.reads = 0

    async def get_token(self, digest: bytes) -> AccessToken | None:
        self.reads += 1
        was_valid = self.is_valid
        while self.is_held:
            await asyncio.sleep(0)
        if not was_valid:
            return None
        return AccessToken(digest, "shop", "", (), 0, 10_000.0)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def fill(count: int, clock: Clock) -> tuple[TokenCache, Tokens]:
    store = Tokens()
    validator = TokenCache(store, Metrics(), clock=clock, wall_clock=clock)
    for number in range(count):
        await validator.lookup(f"token-{number}")
    return validator, store


def change_ttl(validator: TokenCache, *, max_entries: int) -> None:
    validator.reconfigure(
        max_entries=max_entries, ttl_s=30.0, negative_ttl_s=5.0, stale_s=0.0, audience=(),
        external=None, is_trust_changed=False, view_claims=lambda token: {},
    )  # fmt: skip


OPERATIONS: dict[str, Callable[[TokenCache], None]] = {
    "client": lambda validator: validator.forget(ClientChange("shop")),
    "all": lambda validator: validator.forget_all(),
    "reload": lambda validator: change_ttl(validator, max_entries=100_000),
    "smaller": lambda validator: change_ttl(validator, max_entries=10),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_dropping_tokens_costs_the_same_however_many_are_cached(operation: str) -> None:
    costs: list[float] = []
    for size in (500, 2_000):
        clock = Clock()
        validator, _ = await fill(size, clock)
        with counted() as lines:
            OPERATIONS[operation](validator)
        costs.append(lines.count)
        clock.now += 31
        assert validator.cached("token-7") is None
        for number in range(size):  # what was dropped goes bit by bit
            with counted() as lines:
                await validator.lookup(f"other-{number}")
            costs.append(lines.count / 1000)
    assert max(costs) < 150, "one call removes only so much"
    assert costs[0] == pytest.approx(costs[501], abs=5)


async def test_dropped_tokens_are_removed_as_others_come_in() -> None:
    validator, _ = await fill(1_000, Clock())
    validator.forget(ClientChange("shop"))
    assert validator.cached("token-1") is None
    for number in range(20):
        await validator.lookup(f"new-{number}")
    assert len(validator) == 20
    change_ttl(validator, max_entries=5)
    for number in range(20):
        await validator.lookup(f"newer-{number}")
    assert len(validator) == 5


async def test_unknown_tokens_that_expire_together_are_not_removed_together() -> None:
    costs = []
    for size in (500, 2_000):
        clock = Clock()
        validator, store = await fill(0, clock)
        store.is_valid = False
        for number in range(size):
            with pytest.raises(InvalidTokenError):
                await validator.lookup(f"made-up-{number}")
        clock.now += 6
        reads = store.reads
        with counted() as lines, pytest.raises(InvalidTokenError):
            await validator.lookup("made-up-1")
        await asyncio.sleep(0)
        assert store.reads == reads + 1, "it is asked for again"
        costs.append(lines.count)
    assert costs[1] <= costs[0] + 5


def test_failures_that_are_over_together_are_not_removed_together() -> None:
    costs = []
    for size in (500, 2_000):
        clock = Clock()
        limiter = FailedClientLimiter(failures=1, window_s=60, clock=clock)
        for number in range(size):
            limiter.fail(f"client-{number}", "192.0.2.1")
        assert limiter.retry_after_s("client-3", "192.0.2.1") == 60
        clock.now += 60
        with counted() as lines:
            assert limiter.retry_after_s("client-3", "192.0.2.1") is None
            limiter.fail("another", "192.0.2.1")
        assert not limiter.succeed("client-4", "192.0.2.1")
        assert [one.client_id for one in limiter.failing()] == ["another"]
        costs.append(lines.count)
    assert costs[1] <= costs[0] + 5


@pytest.mark.parametrize("change", [TokenChange(digest_token("token")), ClientChange("shop")])
async def test_look_up_after_a_revocation_does_not_join_a_read_from_before(
    change: TokenChange | ClientChange,
) -> None:
    validator, store = await fill(0, Clock())
    store.is_held = True
    early = asyncio.create_task(validator.lookup("token"))
    await until(lambda: store.reads == 1)
    store.is_valid = False  # it is revoked, and the response of the first read is still on its way
    validator.forget(change)
    late = asyncio.create_task(validator.lookup("token"))
    await until(lambda: store.reads == 2)
    store.is_held = False
    assert (await early).token.client_id == "shop"
    with pytest.raises(InvalidTokenError):
        await late
    assert validator.cached("token") is None


def test_proofs_that_are_too_old_together_are_not_forgotten_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs = []
    for size in (500, 2_000):
        clock = Clock()
        proofs = DpopProofs(Seal(lambda: b"x" * 32), max_age_s=10.0, wall_clock=clock)
        for number in range(size):
            proofs._remember(str(number))
        clock.now += 21
        with counted() as lines:
            proofs._remember("another")
        costs.append(lines.count)
        for number in range(size):  # they go bit by bit
            proofs._remember(f"later-{number}")
        assert "0" not in proofs._seen
        assert len(proofs._seen) == size + 1
        with counted() as lines:
            proofs.reconfigure(requires_nonce=False, max_age_s=60.0)
        assert lines.count < 10
        assert "another" in proofs._seen
    assert costs[1] <= costs[0] + 5
    monkeypatch.setattr("gateway.oauth.binding.dpop.MAX_SEEN", 10)
    for number in range(3_000):
        proofs._remember(f"flood-{number}")
    assert len(proofs._seen) <= 11
