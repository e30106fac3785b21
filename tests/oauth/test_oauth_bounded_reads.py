"""So many reads of the store at once, and no queue without end."""

from __future__ import annotations

import asyncio

import pytest

from gateway.oauth.bounded_reads import BoundedReads
from gateway.oauth.models import AccessToken, StoreUnavailableError


class HeldStore:
    """Answers when the test lets it, and keeps how many reads were under way at most."""

    def __init__(self) -> None:
        self.may_respond = asyncio.Event()
        self.under_way = 0
        self.most = 0

    async def get_token(self, digest: bytes) -> AccessToken | None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.may_respond.wait()
            if digest == b"broken":
                raise StoreUnavailableError("broken")
            return None
        finally:
            self.under_way -= 1


async def test_reads_beyond_the_bound_wait_for_their_turn() -> None:
    store = HeldStore()
    reads = BoundedReads(store, at_once=3, wait_s=30, max_waiting=100)
    tasks = [asyncio.create_task(reads.get_token(b"")) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert store.under_way == 3
    store.may_respond.set()
    assert await asyncio.gather(*tasks) == [None] * 20
    assert store.most == 3


async def test_read_that_waited_too_long_is_given_up_and_others_go_on() -> None:
    store = HeldStore()
    reads = BoundedReads(store, at_once=1, wait_s=0.01, max_waiting=100)
    first = asyncio.create_task(reads.get_token(b""))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError, match="too many") as caught:
        await reads.get_token(b"")
    assert caught.value.retry_after_s >= 1
    store.may_respond.set()
    assert await first is None
    assert await reads.get_token(b"") is None


async def test_who_would_lengthen_the_queue_beyond_its_bound_is_sent_away_at_once() -> None:
    store = HeldStore()
    reads = BoundedReads(store, at_once=1, wait_s=30, max_waiting=5)
    tasks = [asyncio.create_task(reads.get_token(b"")) for _ in range(6)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError, match="too many"):
        await reads.get_token(b"")
    store.may_respond.set()
    assert await asyncio.gather(*tasks) == [None] * 6


async def test_reads_that_fail_or_are_cancelled_make_room() -> None:
    store = HeldStore()
    reads = BoundedReads(store, at_once=2, wait_s=30, max_waiting=5)
    cancelled = asyncio.create_task(reads.get_token(b""))
    broken = asyncio.create_task(reads.get_token(b"broken"))
    waiting = asyncio.create_task(reads.get_token(b""))
    await asyncio.sleep(0)
    waiting.cancel()
    cancelled.cancel()
    store.may_respond.set()
    outcomes = await asyncio.gather(cancelled, broken, waiting, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "CancelledError", "StoreUnavailableError", "CancelledError",
    ]  # fmt: skip
    assert await asyncio.gather(*(reads.get_token(b"") for _ in range(7))) == [None] * 7
