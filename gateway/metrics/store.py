"""Metrics of the store, and of how its changes reach the caches."""

from __future__ import annotations

from gateway.metrics.registry import Registry


class StoreMetrics:
    """Operations of the store, and what is heard of those of other processes."""

    is_up = True

    def __init__(self, registry: Registry) -> None:
        self.tokens_purged = registry.counter(
            "tokens_purged", "Expired tokens removed from the store."
        )
        self.operation_seconds = registry.durations(
            "store_operation_seconds", "Duration of store operations.", ["operation"]
        )
        self.up = registry.gauge(
            "store_up", "Whether the last store operation was answered (1 or 0)."
        )
        self.cache_invalidation_lag = registry.durations(
            "cache_invalidation_lag_seconds",
            "From a revocation in the store to the token being forgotten here.",
        )
        self.cache_sweeps = registry.counter(
            "cache_sweeps", "Times the whole token cache was dropped, as changes may be missed."
        )

    def answered(self, is_up: bool) -> None:
        """Whether the store answered an operation that has just ended."""
        self.is_up = is_up
        self.up.set(is_up)
