"""Retry policy: which failures are retried, how often, and after which pause.

Names and defaults are Envoy's: one retry, after a pause drawn from 25 ms, 75 ms, 175 ms ...
up to 250 ms, and no more retries at once than 20 % of the requests that are under way, or
three. Only what does no harm twice is tried again: a request none of whose bytes left, or
one of an idempotent method (RFC 9110 section 9.2.2) without a body.
"""

from __future__ import annotations

from gateway.upstream.outlier_detection import GATEWAY_FAILURES
from gateway.upstream.settings import Retries

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

CONNECT_FAILURE = "connect-failure"
"""No connection, so nothing was sent."""
RESET = "reset"
"""The connection ended, or time ran out, before the head of a response."""
STATUS = "status"
"""A response with one of the policy's statuses."""
STALE = "stale-connection"
"""A used connection turned out to be closed: sent again at once, whatever the policy."""
REFUSED = "refused-stream"
"""The upstream said that it did not process the request (HTTP/2): sent again, whatever the
policy."""
HEDGE = "hedge"
"""A second request beside one that takes its time."""


class RetryPolicy:
    """The failures for which an upstream's requests are retried."""

    def __init__(self, settings: Retries, *, max_retries: int | None = None) -> None:
        """`max_retries` is a fixed number of retries at once, in place of the budget."""
        causes = settings.retry_on
        statuses = frozenset(settings.statuses)
        if "gateway-error" in causes:
            statuses |= GATEWAY_FAILURES
        self.attempts = settings.attempts
        self.statuses = statuses if settings.attempts else frozenset[int]()
        self.backoff = settings.backoff
        self.budget = settings.budget
        self.max_retries = max_retries
        self._causes = frozenset[str]((*causes, STATUS))

    def covers(self, cause: str) -> bool:
        """Whether it allows a retry for this cause."""
        return cause in self._causes


class RetryLimiter:
    """How many retries may be under way at once: a retry must not be what an outage grows by."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.active = 0

    def limit(self, active_requests: int) -> int:
        """The number of retries that `active_requests` allow."""
        policy = self._policy
        if policy.max_retries is not None:
            return policy.max_retries
        share = int(active_requests * policy.budget.percent / 100)
        return max(policy.budget.min_concurrency, share)

    def try_take(self, active_requests: int) -> bool:
        """Begin a retry, if the budget allows."""
        if self.active >= self.limit(active_requests):
            return False
        self.active += 1
        return True

    def give_back(self) -> None:
        """A retry is over, well or not."""
        self.active -= 1
