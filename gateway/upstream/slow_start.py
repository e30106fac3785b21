"""Slow start: an endpoint that is new, or back again, gets its share of requests little by little.

Envoy's formula (`SlowStartConfig`): for `window_s` seconds the weight is multiplied by
(time since start / window) ^ (1 / aggression), and by `min_weight_percent` at least.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlowStart:
    """How the weight grows."""

    window_s: float
    aggression: float = 1.0
    min_weight_percent: float = 10.0

    def factor(self, elapsed_s: float) -> float:
        """The part of its weight that an endpoint has so long after it began."""
        if elapsed_s >= self.window_s:
            return 1.0
        grown = max(0.0, elapsed_s / self.window_s) ** (1.0 / self.aggression)
        return float(max(self.min_weight_percent / 100.0, grown))
