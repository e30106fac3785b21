"""The limit on failed clients, over several processes."""

from __future__ import annotations

import pytest
from support.provider import Clock

from gateway.workers.limits import GroupLimiter
from gateway.workers.messages import ClientFailed, ClientSucceeded, Message

SHOP = ("shop", "192.0.2.1")


class Pair:
    """Two limiters that hear each other."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.reported: list[Message] = []
        self.one = GroupLimiter(announce=self.receive_two, clock=self.clock)
        self.two = GroupLimiter(announce=self.receive_one, clock=self.clock)

    def receive_one(self, message: Message) -> None:
        self._report(self.one, message)

    def receive_two(self, message: Message) -> None:
        self._report(self.two, message)

    def _report(self, limiter: GroupLimiter, message: Message) -> None:
        self.reported.append(message)
        assert isinstance(message, ClientFailed | ClientSucceeded)
        limiter.receive(message)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_failures_count_wherever_they_happen(pair: Pair) -> None:
    for _ in range(2):
        pair.one.fail(*SHOP)
        pair.two.fail(*SHOP)
    assert pair.one.retry_after_s(*SHOP) is pair.two.retry_after_s(*SHOP) is None
    pair.two.fail(*SHOP)
    assert pair.one.retry_after_s(*SHOP) == pair.two.retry_after_s(*SHOP) == 600
    assert pair.one.retry_after_s("shop", "192.0.2.2") is None
    pair.clock.now += 600
    assert pair.one.retry_after_s(*SHOP) is pair.two.retry_after_s(*SHOP) is None


def test_success_is_reported_only_after_failures(pair: Pair) -> None:
    assert not pair.one.succeed(*SHOP)
    assert pair.reported == []
    for _ in range(4):
        pair.one.fail(*SHOP)
    assert pair.two.succeed(*SHOP)
    pair.one.fail(*SHOP)
    assert pair.one.retry_after_s(*SHOP) is None
    assert pair.reported.count(ClientSucceeded(*SHOP)) == 1


def test_new_process_goes_on_where_the_others_are(pair: Pair) -> None:
    for _ in range(5):
        pair.one.fail(*SHOP)
    pair.clock.now += 500
    pair.one.fail("other", "192.0.2.1")
    fresh = GroupLimiter(announce=pair.reported.append, clock=pair.clock)
    pair.reported.clear()
    for failing in pair.one.failing():
        fresh.restore(failing)
    assert pair.reported == []
    assert fresh.retry_after_s(*SHOP) == 100
    assert fresh.retry_after_s("other", "192.0.2.1") is None
    pair.clock.now += 100
    assert fresh.retry_after_s(*SHOP) is None
    assert [failing.client_id for failing in fresh.failing()] == ["other"]
