"""Passive outlier detection: an endpoint that keeps failing is ejected for a while.

The rules are Envoy's (`OutlierDetection`): so many failures in a row eject; each further
ejection lasts longer, and the count goes down again for every interval without one. What
differs: the last endpoint that is left is never ejected, and an ejection ends on time
rather than at the next interval.
"""

from __future__ import annotations

from gateway.upstream.settings import OutlierDetection

GATEWAY_FAILURES = frozenset({502, 503, 504})


class FailureCounts:
    """The failures of one endpoint that came in a row."""

    def __init__(self, policy: OutlierDetection) -> None:
        self._policy = policy
        self.server_errors = 0
        self.gateway_failures = 0
        self.ejections = 0
        """How often it was ejected, less what was forgiven since."""
        self._forgiven_at = 0.0

    def responded(self, status: int) -> str:
        """A response came; returns why the endpoint is to be ejected, if it is."""
        if status < 500:
            self.server_errors = self.gateway_failures = 0
            return ""
        self.server_errors += 1
        if status in GATEWAY_FAILURES:
            self.gateway_failures += 1
        else:
            self.gateway_failures = 0
        return self._verdict()

    def failed(self) -> str:
        """No response came: as a 5xx that a gateway would give."""
        self.server_errors += 1
        self.gateway_failures += 1
        return self._verdict()

    def _verdict(self) -> str:
        policy = self._policy
        if policy.consecutive_5xx and self.server_errors >= policy.consecutive_5xx:
            return "consecutive_5xx"
        limit = policy.consecutive_gateway_failures
        return "consecutive_gateway_failure" if limit and self.gateway_failures >= limit else ""

    def eject(self, now: float) -> float:
        """Count an ejection that begins now; returns when it ends."""
        self.server_errors = self.gateway_failures = 0
        if self._policy.interval_s and self._forgiven_at:
            quiet = int(max(0.0, now - self._forgiven_at) / self._policy.interval_s)
            self.ejections = max(0, self.ejections - quiet)
        self.ejections += 1
        until = now + self._policy.ejection_s(self.ejections)
        self._forgiven_at = until
        return until
