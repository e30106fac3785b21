"""A store that failed is left alone for a while."""

from __future__ import annotations

import pytest
from support.provider import Clock

from gateway.oauth.models import StoreUnavailableError
from gateway.store.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, StoreBreaker


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_breaker(clock: Clock, chance: float = 1.0) -> StoreBreaker:
    breaker = StoreBreaker(failures=3, clock=clock, chance=lambda: chance)
    for _ in range(3):
        breaker.enter()
        breaker.fail()
    return breaker


def test_calls_go_through_until_several_fail_in_a_row(clock: Clock) -> None:
    breaker = StoreBreaker(failures=3, clock=clock)
    for _ in range(2):
        breaker.enter()
        breaker.fail()
    breaker.enter()
    breaker.succeed()
    for _ in range(2):
        breaker.enter()
        breaker.fail()
    assert not breaker.is_open
    breaker.enter()
    breaker.fail()
    with pytest.raises(StoreUnavailableError, match="left alone"):
        breaker.enter()


def test_after_the_pause_one_call_tries_and_the_others_stay_away(clock: Clock) -> None:
    breaker = open_breaker(clock)
    clock.now += FIRST_PAUSE_S
    breaker.enter()
    with pytest.raises(StoreUnavailableError):
        breaker.enter()
    breaker.succeed()
    assert not breaker.is_open
    breaker.enter()


def test_pause_grows_up_to_a_bound(clock: Clock) -> None:
    breaker = open_breaker(clock)
    pauses = []
    for _ in range(6):
        started = clock.now
        while True:
            try:
                breaker.enter()
                break
            except StoreUnavailableError:
                clock.now += 0.01
        pauses.append(clock.now - started)
        breaker.fail()
    assert pauses[0] == pytest.approx(FIRST_PAUSE_S, abs=0.02)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_S, abs=0.02)


def test_pause_differs_from_process_to_process(clock: Clock) -> None:
    hasty, patient = open_breaker(clock, 0.0), open_breaker(clock, 1.0)
    clock.now += FIRST_PAUSE_S * 0.75
    hasty.enter()
    with pytest.raises(StoreUnavailableError):
        patient.enter()


def test_caller_that_goes_away_lets_another_one_try(clock: Clock) -> None:
    breaker = open_breaker(clock)
    clock.now += LONGEST_PAUSE_S
    breaker.enter()
    breaker.withdraw()
    assert breaker.is_open
    breaker.enter()
    breaker.succeed()
    assert not breaker.is_open
