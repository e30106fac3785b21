"""A lease in each store: one of many holds it."""

from __future__ import annotations

import asyncio

from support.provider import Clock

from gateway.oauth.lease import Lease
from gateway.oauth.models import Store


def make_lease(store: Store, clock: Clock, name: str = "work") -> Lease:
    return Lease(store.records, name, ttl_s=30.0, wall_clock=clock)


async def test_of_many_one_holds_a_lease_until_it_is_released(store: Store, clock: Clock) -> None:
    leases = [make_lease(store, clock) for _ in range(8)]
    taken = await asyncio.gather(*(lease.acquire() for lease in leases))
    assert sorted(taken) == [False] * 7 + [True]
    (holder,) = [lease for lease in leases if lease.is_held]
    assert await make_lease(store, clock, "other").acquire()
    assert await holder.extend()
    await holder.release()
    assert not holder.is_held
    assert await make_lease(store, clock).acquire()


async def test_lease_of_a_holder_that_died_ends(store: Store, clock: Clock) -> None:
    dead, heir = make_lease(store, clock), make_lease(store, clock)
    assert await dead.acquire()
    clock.now += 20
    assert await dead.extend()
    clock.now += 20
    assert not await heir.acquire(), "it was extended"
    clock.now += 11
    assert await heir.acquire()
    assert not await dead.extend()
    await dead.release()  # which is no longer its own
    assert not await make_lease(store, clock).acquire()
    assert await heir.extend()
