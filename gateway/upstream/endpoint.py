"""One address of a target, and whether it should be used.

What is known of the endpoint comes from three sides: whether it could be connected to
(`pool.py`), what its responses were (`outlier_detection.py`), and what the health checks say
(`health_checks.py`). It reports to its upstream when that changes, so that no request has to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.metrics import Tally
from gateway.upstream.circuit_breaker import Breaker
from gateway.upstream.h2_pool import MultiplexedPool
from gateway.upstream.outlier_detection import FailureCounts
from gateway.upstream.pool import ConnectionPool
from gateway.upstream.settings import SlowStart
from gateway.upstream.target import Target

PASSED_OVER_S = 5.0
"""How long an endpoint that could not be reached is passed over."""


class Endpoint:
    """A place that requests are sent to."""

    def __init__(
        self,
        target: Target,
        address: str,
        *,
        breaker: Breaker,
        ejections: Tally,
        on_change: Callable[[], None],
        on_outlier: Callable[[Endpoint, str], None],
        on_multiplexed: Callable[[], None],
        slow_start: SlowStart | None = None,
        failures: FailureCounts | None = None,
    ) -> None:
        """`address` is empty for wherever the target's URL leads by itself. `on_change` is
        called when it may have gone up or down, `on_outlier` when it fails too often,
        `on_multiplexed` when it turned out to speak HTTP/2."""
        self.target = target
        self.address = address
        self.weight = target.weight
        self.warming_since = 0.0
        """When its slow start began; 0 if it has none, or it is over."""
        self.key = f"{target.url}\0{address}"
        """What `consistent_hash` knows it by."""
        self.failures = failures
        """Counts failures in a row, where the upstream ejects outliers."""
        self.is_healthy = True
        """What the health checks say."""
        self.unreachable_until = 0.0
        self.ejected_until = 0.0
        self.ejected_for = ""
        """Why it was ejected last."""
        self.failures_in_row = 0
        """Requests and dials that failed since one succeeded; a status of 500 and above counts."""
        self.last_error = ""
        """The reason of the last of them."""
        self.pool = self._make_pool(breaker, on_multiplexed)
        self._ejections = ejections
        self._on_change = on_change
        self._on_outlier = on_outlier
        self._slow_start = slow_start

    def __repr__(self) -> str:
        where = f"{self.target.url} at {self.address}" if self.address else self.target.url
        return f"<Endpoint {where}, {self.pool.active} active, {self.pool.idle} idle>"

    def _make_pool(self, breaker: Breaker, on_multiplexed: Callable[[], None]) -> ConnectionPool:
        if self.target.protocol == "http1":
            return ConnectionPool(
                self.target,
                self.address,
                breaker,
                on_connected=self._reached,
                on_connect_failed=self._pass_over,
            )
        return MultiplexedPool(
            self.target,
            self.address,
            breaker,
            on_connected=self._reached,
            on_connect_failed=self._pass_over,
            on_multiplexed=on_multiplexed,
        )

    def is_up(self, now: float) -> bool:
        """Whether nothing speaks against sending a request to it."""
        return self.is_healthy and now >= self.unreachable_until and now >= self.ejected_until

    # Its share of the requests.

    def warm_up(self, now: float) -> None:
        """Begin a slow start."""
        if self._slow_start is not None:
            self.warming_since = now

    def weight_at(self, now: float) -> float:
        """Its weight, a slow start taken into account."""
        if not self.warming_since or self._slow_start is None:
            return float(self.weight)
        factor = self._slow_start.factor(now - self.warming_since)
        if factor >= 1.0:
            self.warming_since = 0.0
        return self.weight * factor

    # What is known of it.

    def failed(self, reason: str) -> None:
        """It gave no response, or cut one off."""
        self.note_failure(reason)
        if self.failures is not None and (reason := self.failures.failed()):
            self._on_outlier(self, reason)

    def note_failure(self, reason: str) -> None:
        """Keep why a request failed, to be shown."""
        self.failures_in_row += 1
        self.last_error = reason

    def responded(self, status: int) -> None:
        """It gave a response."""
        if self.failures is not None and (reason := self.failures.responded(status)):
            self._on_outlier(self, reason)

    def _reached(self) -> None:
        if self.unreachable_until:
            self.unreachable_until = 0.0
            self._on_change()

    def _pass_over(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self.unreachable_until:
            self._ejections["connect_failure"] += 1
        self.unreachable_until = now + PASSED_OVER_S
        self.failed("upstream_connect_failed")
        self._on_change()
