"""Stops guessing of names and passwords, at all processes and replicas on a store together.

Failures are records of the store, in fixed windows that begin with the first failure: each costs
an attempt that was verified by a slow hash, so there are never many. Their keys are digests, since
some users type their password where the name belongs.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar
from weakref import WeakValueDictionary

from gateway.oauth.models import Clock, Record, RecordStore, digest_token

SIGN_IN_FAILURES = "sign-in-failures"
NETWORK_TIMES = 6
"""A network may fail so many times as often as one name there: it may be an office."""
ATTEMPTS = 100
"""To count a failure while other processes count theirs: of three that try, one succeeds."""

Account = TypeVar("Account")


class SignInLimits:
    """Limits sign-ins by name and password: each name by its failures from a network, and each
    network by those of all names. What succeeds counts for nothing."""

    def __init__(
        self,
        records: RecordStore,
        kind: str,
        limit: Callable[[], tuple[int, float]],
        *,
        wall_clock: Clock = time.time,
    ) -> None:
        """`kind` sets off what is counted here from what others count. `limit` returns how many
        failures of a name are allowed, and within how many seconds."""
        self._records = records
        self._kind = kind
        self._limit = limit
        self._wall_clock = wall_clock
        self._pending: Counter[str] = Counter()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def attempt(
        self, name: str, network: str, verify: Callable[[], Awaitable[Account | None]]
    ) -> Account | int | None:
        """Verify name and password: the account, or None where one of them is wrong. After too
        many failures, the seconds to wait, and nothing is verified. Raises what `verify` raises,
        and `StoreUnavailableError`."""
        one, whole = _key(f"{self._kind}:{name}", network), _key(f"{self._kind} network", network)
        # One at a time, or a burst of guesses would be on its way before the first one counts.
        async with self._turns.setdefault(one, asyncio.Lock()):
            failures, window_s = self._limit()
            of_name = await self._records.get_record(SIGN_IN_FAILURES, one)
            of_network = await self._records.get_record(SIGN_IN_FAILURES, whole)
            wait_s = self._wait_s(of_name, failures) or self._wait_s(
                of_network, failures * NETWORK_TIMES, beside=self._pending[network]
            )
            if wait_s:
                return wait_s
            self._pending[network] += 1
            try:
                account = await verify()
                if account is None:
                    await self._count(one, window_s)
                    # In turns, or those of a burst would stand in each other's way.
                    async with self._turns.setdefault(whole, asyncio.Lock()):
                        await self._count(whole, window_s)
            finally:
                self._pending[network] -= 1
                if not self._pending[network]:
                    del self._pending[network]
            if account is not None and of_name is not None:
                await self._records.delete_record(SIGN_IN_FAILURES, one)
            return account

    def _wait_s(self, failed: Record | None, allowed: int, *, beside: int = 0) -> int | None:
        """Seconds to wait; None where fewer than `allowed` have failed, those `beside` included."""
        if (int(failed.value) if failed else 0) + beside < allowed:
            return None
        end = (failed.expires_at if failed else None) or 0.0
        return max(1, math.ceil(end - self._wall_clock()))

    async def _count(self, key: str, window_s: float) -> None:
        for _ in range(ATTEMPTS):
            failed = await self._records.get_record(SIGN_IN_FAILURES, key)
            if failed is None:
                end = self._wall_clock() + window_s
                if await self._records.add_record(Record(SIGN_IN_FAILURES, key, "", b"1", end)):
                    return
            else:
                more = replace(failed, value=b"%d" % (int(failed.value) + 1))
                if await self._records.swap_record(failed, more):
                    return


def _key(what: str, network: str) -> str:
    return digest_token(f"{what}\0{network}").hex()
