"""Failed sign-ins, counted by all processes on a store."""

from __future__ import annotations

import asyncio

import pytest
from support.provider import Clock

from gateway.oauth.models import Store
from gateway.oauth.sign_in_limits import NETWORK_TIMES, SIGN_IN_FAILURES, SignInLimits


async def wrong() -> None:
    return None


async def right() -> str:
    return "alice"


@pytest.fixture
def replicas(store: Store, clock: Clock) -> list[SignInLimits]:
    """Three gateways."""
    return [
        SignInLimits(store.records, "user", lambda: (5, 600.0), wall_clock=clock) for _ in range(3)
    ]


async def test_failures_at_one_replica_count_at_the_others(
    replicas: list[SignInLimits], clock: Clock
) -> None:
    for number in range(5):
        assert await replicas[number % 3].attempt("alice", "net", wrong) is None
        clock.now += 10
    for replica in replicas:
        assert await replica.attempt("alice", "net", right) == 550
        assert await replica.attempt("bob", "net", right) == "alice"
        assert await replica.attempt("alice", "elsewhere", right) == "alice"
    clock.now += 550
    assert await replicas[2].attempt("alice", "net", right) == "alice"


async def test_success_at_one_replica_forgets_the_failures_at_all(
    replicas: list[SignInLimits],
) -> None:
    for _ in range(2):
        for number in range(4):
            assert await replicas[number % 3].attempt("alice", "net", wrong) is None
        assert await replicas[0].attempt("alice", "net", right) == "alice"


async def test_no_failure_of_a_burst_from_one_network_is_lost(
    replicas: list[SignInLimits], store: Store
) -> None:
    allowed = 5 * NETWORK_TIMES
    names = [f"user-{number}" for number in range(allowed)]
    results = await asyncio.gather(
        *(replicas[number % 3].attempt(name, "net", wrong) for number, name in enumerate(names))
    )
    # The last ones may have had to wait for those that were being verified.
    failed = results.count(None)
    while await replicas[0].attempt(f"later-{failed}", "net", wrong) is None:
        failed += 1
    assert failed == allowed
    for replica in replicas:
        assert isinstance(await replica.attempt("one more", "net", right), int)
        assert await replica.attempt("one more", "elsewhere", right) == "alice"
    kept = await store.records.list_records(SIGN_IN_FAILURES, limit=1000)
    assert len(kept) == len(names) + 1
    assert not any("user" in record.key for record in kept), "some type their password there"


async def test_guesses_of_one_name_at_once_are_verified_up_to_the_limit(
    replicas: list[SignInLimits],
) -> None:
    outcomes = await asyncio.gather(
        *(replicas[0].attempt("alice", "net", wrong) for _ in range(50))
    )
    assert outcomes.count(None) == 5
