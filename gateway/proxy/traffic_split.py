"""Requests shared out between upstreams, as for a canary."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from random import random

from gateway.downstream.request import Request
from gateway.upstream.upstream import Upstream

Key = Callable[[Request, str], str]
"""Of a request and the client of its token, empty without one."""
Counts = MutableMapping[tuple[str, str], int]
"""Requests by route and upstream."""

_BITS = 64


def by_client(request: Request, client_id: str) -> str:
    """The client of the token; without one, the address."""
    return client_id or request.client


def by_source(request: Request, client_id: str) -> str:
    """The client's address."""
    return request.client


def by_header(name: str) -> Key:
    """The values of a field."""
    lower = name.lower().encode("ascii")

    def key(request: Request, client_id: str) -> str:
        values = request.header_values(lower)
        return b",".join(values).decode("latin-1")

    return key


class Split:
    """Shares by weight. What has the same key goes the same way, in every process; without a
    key, chance decides."""

    def __init__(
        self,
        route: str,
        shares: Sequence[tuple[Upstream, int]],
        *,
        key: Key | None = None,
        counts: Counts,
        chance: Callable[[], float] = random,
    ) -> None:
        self._route = route
        self.shares = tuple(share for share in shares if share[1])
        # Fractions: where a weight grows, only those keys move that it takes over.
        total = sum(weight for _, weight in self.shares)
        self._ends = [end / total for end in accumulate(weight for _, weight in self.shares)]
        self._key = key
        self._counts = counts
        self._chance = chance

    def choose(self, request: Request, client_id: str) -> Upstream:
        """The upstream for a request. Counts it."""
        point = self._chance() if self._key is None else self._point(self._key(request, client_id))
        at = next((at for at, end in enumerate(self._ends) if point < end), -1)
        upstream = self.shares[at][0]
        count = self._route, upstream.name
        self._counts[count] = self._counts.get(count, 0) + 1
        return upstream

    def _point(self, key: str) -> float:
        # Of the route, too: a client is not the canary of every route.
        digest = blake2b(f"{self._route}\0{key}".encode(), digest_size=_BITS // 8).digest()
        return int.from_bytes(digest, "big") / (1 << _BITS)
