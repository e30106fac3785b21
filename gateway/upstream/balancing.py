"""The ways to choose an endpoint for a request.

A balancer gets the endpoints that may be chosen when they change, and asked for each
request. Where all weigh the same and none is in its slow start, it does not look at
weights at all.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random
from typing import Literal

from gateway.upstream.endpoint import Endpoint

Balance = Literal["round_robin", "least_requests", "random_two", "consistent_hash"]


class Balancer:
    """Takes turns; what the other ways have in common."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._endpoints: list[Endpoint] = []
        self._turn = -1
        self._is_plain = True
        """Whether no weights need be looked at."""

    def update(self, endpoints: list[Endpoint]) -> None:
        """Choose among these from now on; there is at least one."""
        self._endpoints = endpoints
        first = endpoints[0].weight
        self._is_plain = all(
            endpoint.weight == first and not endpoint.warming_since for endpoint in endpoints
        )

    def choose(self, key: str) -> Endpoint:
        """The endpoint for a request. `key` is what `consistent_hash` keeps together."""
        if self._is_plain:
            self._turn += 1
            return self._endpoints[self._turn % len(self._endpoints)]
        return self._choose_smoothly(by_load=False)

    def choose_among(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        """The endpoint for another try, out of those that are left."""
        return _less_busy(candidates, self._random)

    def _choose_smoothly(self, *, by_load: bool) -> Endpoint:
        """Smooth weighted round robin, as nginx has it: each saves its weight up, the richest is
        taken and pays all of it."""
        now = asyncio.get_running_loop().time()
        total = 0.0
        best = self._endpoints[0]
        is_warming = False
        for endpoint in self._endpoints:
            weight = endpoint.weight_at(now)
            if by_load:
                weight /= endpoint.pool.active + 1
            if endpoint.warming_since:
                is_warming = True
            endpoint.turn_credit += weight
            total += weight
            if endpoint.turn_credit > best.turn_credit:
                best = endpoint
        best.turn_credit -= total
        if not is_warming:
            self.update(self._endpoints)
        return best


class LeastRequests(Balancer):
    """The one with the fewest requests in flight. With weights as Envoy does: in turn, each
    weight being divided by the requests in flight."""

    def choose(self, key: str) -> Endpoint:
        if not self._is_plain:
            return self._choose_smoothly(by_load=True)
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

    def choose(self, key: str) -> Endpoint:
        endpoints = self._endpoints
        if len(endpoints) == 1:
            return endpoints[0]
        if self._is_plain:
            return _less_busy(endpoints, self._random)
        now = asyncio.get_running_loop().time()
        weights = [endpoint.weight_at(now) for endpoint in endpoints]
        first = self._draw(weights)
        first_weight, weights[first] = weights[first], 0.0
        second = self._draw(weights)
        one, other = endpoints[first], endpoints[second]
        if not any(endpoint.warming_since for endpoint in endpoints):
            self.update(endpoints)
        return (
            one if one.pool.active / first_weight <= other.pool.active / weights[second] else other
        )

    def _draw(self, weights: list[float]) -> int:
        return self._random.choices(range(len(weights)), weights)[0]


class ConsistentHash(Balancer):
    """Always the same one for a key. Rendezvous hashing: an endpoint that goes moves only its own
    keys, and a weight is the share of keys that an endpoint has."""

    def choose(self, key: str) -> Endpoint:
        return self.choose_among(self._endpoints, key)

    def choose_among(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        best, highest = candidates[0], -1.0
        for endpoint in candidates:
            digest = blake2b(f"{endpoint.key}\0{key}".encode(), digest_size=8).digest()
            # In (0, 1), so that its logarithm is there and negative.
            chance = (int.from_bytes(digest, "big") + 0.5) / 2.0**64
            score = -endpoint.weight / math.log(chance) if chance < 1.0 else math.inf
            if score > highest:
                best, highest = endpoint, score
        return best


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
