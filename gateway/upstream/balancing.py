"""The ways to choose an endpoint for a request.

A balancer gets the endpoints that may be chosen when they change, and asked for each
request. Where all weigh the same and none is in its slow start, it does not look at
weights at all.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from heapq import heapify, heapreplace
from itertools import accumulate
from random import Random
from typing import Literal

from gateway.upstream.endpoint import Endpoint

_log = logging.getLogger(__name__)

Balance = Literal["round_robin", "least_requests", "random_two", "consistent_hash"]


class Balancer:
    """Takes turns; what the other ways have in common."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._endpoints: list[Endpoint] = []
        self._known: list[Endpoint] = []
        self._turn = -1
        self._queue: list[tuple[float, int, Endpoint]] = []
        """Of endpoints whose weights differ: whose turn is when."""
        self._is_plain = True
        """Whether no weights need be looked at."""

    def update(self, endpoints: list[Endpoint], known: list[Endpoint]) -> None:
        """Choose among `endpoints` from now on; there is at least one. `known` are those that
        are down, too. Neither list is changed afterwards."""
        self._known = known
        self._endpoints = endpoints
        self._queue = []
        first = endpoints[0].weight
        self._is_plain = all(
            endpoint.weight == first and not endpoint.warming_since for endpoint in endpoints
        )

    def choose(self, key: str) -> Endpoint:
        """The endpoint for a request. `key` is what `consistent_hash` keeps together."""
        if self._is_plain:
            self._turn += 1
            return self._endpoints[self._turn % len(self._endpoints)]
        return self._choose_by_weight(by_load=False)

    def choose_among(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        """The endpoint for another try, out of those that are left."""
        return _less_busy(candidates, self._random)

    def _choose_by_weight(self, *, by_load: bool) -> Endpoint:
        """Earliest deadline first, as Envoy has it: the turns of an endpoint are 1 / weight apart,
        and in the middle of that time at first, so that those of others are in between."""
        now = asyncio.get_running_loop().time()
        queue = self._queue
        if not queue:
            for order, endpoint in enumerate(self._endpoints):
                queue.append((0.5 / endpoint.weight_at(now), order, endpoint))
            heapify(queue)
        deadline, order, endpoint = queue[0]
        was_warming = bool(endpoint.warming_since)
        weight = endpoint.weight_at(now)
        if by_load:
            weight /= endpoint.pool.active + 1
        heapreplace(queue, (deadline + 1 / weight, order, endpoint))
        if was_warming and not endpoint.warming_since:
            self.update(self._endpoints, self._known)
        return endpoint


class LeastRequests(Balancer):
    """The one with the fewest requests in flight. With weights as Envoy does: in turn, each
    weight being divided by the requests in flight."""

    def choose(self, key: str) -> Endpoint:
        if not self._is_plain:
            return self._choose_by_weight(by_load=True)
        # Begin somewhere else each time, so that those that are equal take turns.
        endpoints = self._endpoints
        count = len(endpoints)
        self._turn += 1
        best = endpoints[self._turn % count]
        fewest = best.pool.active
        for step in range(1, count):
            if not fewest:
                break
            endpoint = endpoints[(self._turn + step) % count]
            active = endpoint.pool.active
            if active < fewest:
                best, fewest = endpoint, active
        return best


class RandomTwo(Balancer):
    """The less busy of two drawn randomly, which avoids the herd that all-see-the-same-least
    would make."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._ends: list[float] = []
        """Sums of the weights up to each endpoint."""
        self._weighed_at = 0.0

    def update(self, endpoints: list[Endpoint], known: list[Endpoint]) -> None:
        super().update(endpoints, known)
        self._weighed_at = 0.0

    def choose(self, key: str) -> Endpoint:
        endpoints = self._endpoints
        if len(endpoints) == 1:
            return endpoints[0]
        if self._is_plain:
            return _less_busy(endpoints, self._random)
        now = asyncio.get_running_loop().time()
        if now - self._weighed_at >= WEIGHED_S:
            self._weigh(now)
        ends = self._ends
        first = bisect_right(ends, self._random.random() * ends[-1], hi=len(ends) - 1)
        before = ends[first - 1] if first else 0.0
        first_weight = ends[first] - before
        # The same draw out of the others: as if the first one had no width.
        point = self._random.random() * (ends[-1] - first_weight)
        second = bisect_right(ends, point if point < before else point + first_weight)
        second = min(second, len(ends) - 1)
        if second == first:  # by rounding
            second = first - 1 if first else 1
        second_weight = ends[second] - (ends[second - 1] if second else 0.0)
        one, other = endpoints[first], endpoints[second]
        if one.pool.active * second_weight <= other.pool.active * first_weight:
            return one
        return other

    def _weigh(self, now: float) -> None:
        """Look at all weights; those of slow starts change by and by."""
        self._ends = list(accumulate([one.weight_at(now) for one in self._endpoints]))
        if any(endpoint.warming_since for endpoint in self._endpoints):
            self._weighed_at = now
        else:
            self._weighed_at = float("inf")


WEIGHED_S = 0.1
"""How old the weights of slow starts may be."""
MAX_RING_POINTS = 16384
MAX_POINTS_AT_ONCE = 2048
"""Of a ring that is made on the event loop: some 2 ms."""
MAX_POINTS = 160
"""Of an endpoint of weight 1; with so many, shares are exact to some percent."""


class ConsistentHash(Balancer):
    """Always the same one for a key: the first on a ring, from the hash of the key on (Karger et
    al. 1997). An endpoint has points on it in proportion to its weight; one that goes, or is down,
    moves only its own keys.

    A large ring is made in a thread where a loop runs. Until then, keys stay on the one before."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._points: array[int] = array("Q")
        self._owners: array[int] = array("I")
        """Of the points: positions in `_placed`."""
        self._placed: list[Endpoint] = []
        """Those that the ring was made of."""
        self._up: Collection[Endpoint] = ()
        """Those to choose from, where it is not all of the ring."""

    def update(self, endpoints: list[Endpoint], known: list[Endpoint]) -> None:
        is_other = [one.key for one in known] != [one.key for one in self._known]
        self._endpoints, self._known = endpoints, known
        if is_other:
            self._place()
        elif [one.key for one in self._placed] == [one.key for one in known]:
            self._placed = known
        self._choose_from()

    def _place(self) -> None:
        known = self._known
        weighed = [(one.key, one.weight) for one in known]
        scale = _scale_of(weighed)
        if scale * sum(weight for _, weight in weighed) > MAX_POINTS_AT_ONCE and (
            loop := _running_loop()
        ):
            making = loop.run_in_executor(None, _make_ring, weighed, scale)
            making.add_done_callback(lambda made: self._placed_by_thread(known, made))
        else:
            self._points, self._owners = _make_ring(weighed, scale)
            self._placed = known

    def _placed_by_thread(self, known: list[Endpoint], made: asyncio.Future[_Ring]) -> None:
        if made.cancelled():
            return
        if error := made.exception():
            _log.error("a ring of %d endpoints could not be made", len(known), exc_info=error)
            return
        if [one.key for one in known] == [one.key for one in self._known]:
            self._points, self._owners = made.result()
            self._placed = self._known
            self._choose_from()

    def _choose_from(self) -> None:
        is_whole = self._placed is self._known and len(self._endpoints) == len(self._known)
        self._up = () if is_whole else frozenset(self._endpoints)

    def choose(self, key: str) -> Endpoint:
        return self._find(key, self._up)

    def choose_among(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        return self._find(key, frozenset(candidates))

    def _find(self, key: str, candidates: Collection[Endpoint]) -> Endpoint:
        digest = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        points, owners, placed = self._points, self._owners, self._placed
        start = bisect_left(points, number)
        for step in range(len(points)):
            endpoint = placed[owners[(start + step) % len(points)]]
            if not candidates or endpoint in candidates:
                return endpoint
        # There is no ring of these endpoints yet.
        left = self._endpoints
        if candidates and candidates is not self._up:
            left = [one for one in left if one in candidates] or left
        return left[number % len(left)]


_Ring = tuple["array[int]", "array[int]"]
_OWNER_BITS = 32


def _scale_of(weighed: Sequence[tuple[str, float]]) -> float:
    """How many points an endpoint of weight 1 has."""
    total = sum(weight for _, weight in weighed)
    scale = float(MAX_POINTS)
    while scale * total > MAX_RING_POINTS:
        # Half of the points stay where they are.
        scale /= 2
    return scale


def _make_ring(weighed: Sequence[tuple[str, float]], scale: float) -> _Ring:
    """Return points in order, and the position in `weighed` of the owner of each."""
    ring: list[int] = []
    for at, (key, weight) in enumerate(weighed):
        count = max(1, round(weight * scale))
        name = key.encode()
        for number in range(0, count, 8):
            digest = blake2b(b"%b\0%d" % (name, number), digest_size=64).digest()
            ring += [
                int.from_bytes(digest[cut : cut + 8], "big") << _OWNER_BITS | at
                for cut in range(0, 8 * min(8, count - number), 8)
            ]
    ring.sort()  # in one go, with the interpreter's lock: numbers take a third of what pairs take
    owner = (1 << _OWNER_BITS) - 1
    points = array("Q", [entry >> _OWNER_BITS for entry in ring])
    return points, array("I", [entry & owner for entry in ring])


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _less_busy(endpoints: Sequence[Endpoint], random: Random) -> Endpoint:
    if len(endpoints) == 1:
        return endpoints[0]
    one, other = random.sample(endpoints, 2)
    return one if one.pool.active <= other.pool.active else other


def make_balancer(balance: Balance, random: Random) -> Balancer:
    """The balancer of that name."""
    made: dict[str, Callable[[Random], Balancer]] = {
        "round_robin": Balancer,
        "least_requests": LeastRequests,
        "random_two": RandomTwo,
        "consistent_hash": ConsistentHash,
    }
    return made[balance](random)
