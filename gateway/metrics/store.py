"""Metrics of the store, and of how its changes reach the caches."""

from __future__ import annotations

from gateway.metrics.registry import Registry


class StoreMetrics:
    """Metrics of store operations and of change notifications from other processes."""

    is_up = True
    is_writable = True

    def __init__(self, registry: Registry) -> None:
        self.tokens_purged = registry.counter(
            "tokens_purged", "Expired tokens removed from the store."
        )
        self.operation_seconds = registry.durations(
            "store_operation_seconds", "Duration of store operations.", ["operation"]
        )
        self.up = registry.gauge(
            "store_up", "Whether the store responded to the last operation (1 or 0)."
        )
        self.writable = registry.gauge(
            "store_writable", "Whether the store took the last write (1 or 0)."
        )
        self.writable.set(1)  # until a write shows otherwise
        self.cache_invalidation_lag = registry.durations(
            "cache_invalidation_lag_seconds",
            "From a revocation in the store to the token being forgotten here.",
        )
        self.cache_sweeps = registry.counter(
            "cache_sweeps", "Times the whole token cache was dropped, as changes may be missed."
        )

    def set_up(self, is_up: bool) -> None:
        """Note whether the store responded to an operation that has just ended."""
        self.is_up = is_up
        self.up.set(is_up)

    def set_writable(self, is_writable: bool) -> None:
        """Note whether the store took the last write."""
        self.is_writable = is_writable
        self.writable.set(is_writable)
