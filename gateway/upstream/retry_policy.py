"""What may be tried again, how often, and after which pause.

Names and defaults are Envoy's: one retry, after a pause drawn from 25 ms, 75 ms, 175 ms ...
up to 250 ms, and no more retries at once than 20 % of the requests that are under way, or
three. Only what does no harm twice is tried again: a request none of whose bytes left, or
one of an idempotent method (RFC 9110 section 9.2.2) without a body.
"""

from __future__ import annotations

from dataclasses import dataclass

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

CONNECT_FAILURE = "connect-failure"
"""No connection, so nothing was sent."""
RESET = "reset"
"""The connection ended, or time ran out, before the head of an answer."""
STATUS = "status"
"""An answer with one of the policy's statuses."""
STALE = "stale-connection"
"""A used connection turned out to be closed: sent again at once, whatever the policy."""
HEDGE = "hedge"
"""A second request beside one that takes its time."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What an upstream's requests are tried again for. Seconds."""

    attempts: int = 1
    """Tries after the first."""
    on_connect_failure: bool = True
    on_reset: bool = False
    statuses: frozenset[int] = frozenset()
    backoff_base_s: float = 0.025
    backoff_max_s: float = 0.25
    budget_percent: float = 20.0
    min_concurrency: int = 3
    max_retries: int | None = None
    """A fixed number of retries at once, in place of the budget."""

    def covers(self, cause: str) -> bool:
        """Whether it allows a retry for this cause."""
        if cause == CONNECT_FAILURE:
            return self.on_connect_failure
        if cause == RESET:
            return self.on_reset
        return cause == STATUS

    def backoff_s(self, attempt: int, chance: float) -> float:
        """The pause before the retry number `attempt` (from 1), `chance` being in [0, 1)."""
        longest = self.backoff_base_s * (2**attempt - 1)
        return float(min(longest, self.backoff_max_s) * chance)


class RetryBudget:
    """How many retries may be under way at once: a retry must not be what an outage grows by."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.active = 0

    def limit(self, active_requests: int) -> int:
        """The number of retries that `active_requests` allow."""
        policy = self._policy
        if policy.max_retries is not None:
            return policy.max_retries
        share = int(active_requests * policy.budget_percent / 100)
        return max(policy.min_concurrency, share)

    def try_take(self, active_requests: int) -> bool:
        """Begin a retry, if the budget allows."""
        if self.active >= self.limit(active_requests):
            return False
        self.active += 1
        return True

    def give_back(self) -> None:
        """A retry is over, well or not."""
        self.active -= 1
