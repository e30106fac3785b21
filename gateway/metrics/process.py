"""Metrics of the process: configuration, event loop and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prometheus_client import GCCollector, Info, PlatformCollector, ProcessCollector

from gateway import __version__
from gateway.codec import IS_NATIVE, is_compiled
from gateway.metrics.registry import Registry


class ProcessMetrics:
    """Configuration, certificates, workers and the event loop."""

    loop: asyncio.AbstractEventLoop | None = None
    """The event loop of this process, for readers in threads."""

    def __init__(self, registry: Registry) -> None:
        self.config_reloads = registry.tally(
            "config_reloads", "Reloads of the configuration.", ("ok", "error")
        )
        self.config_reload_succeeded = registry.gauge(
            "config_last_reload_successful",
            "Whether the last load of the configuration succeeded (1 or 0).",
        )
        self.config_reload_time = registry.gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration that serves was loaded.",
        )
        self.config_hash = Info(
            "gateway_config_hash", "SHA-256 of the running configuration.", registry=registry
        )
        self.certificate_expiry = registry.gauge(
            "certificate_expiry_timestamp_seconds",
            "When the certificate in use ends.",
            ["certificate"],
        )
        self.build = Info(
            "gateway_build",
            "Version of the gateway, and whether its native code is in use.",
            registry=registry,
        )
        self.build.info(
            {
                "version": __version__,
                "compiled": str(is_compiled()).lower(),
                "codec": str(IS_NATIVE).lower(),
            }
        )
        self.event_loop_lag = registry.durations(
            "event_loop_lag_seconds", "How late the event loop ran a timer."
        )
        self.longest_stall = registry.gauge(
            "event_loop_longest_stall_seconds",
            "The longest time that the event loop was held up, in the last one to two minutes.",
        )
        registry.gauge(
            "event_loop_tasks", "Tasks of the event loop that have not ended."
        ).set_function(self._count_tasks)
        self.log_dropped = registry.counter(
            "log_dropped", "Lines of the process log dropped because standard error took none."
        )
        self.workers = registry.gauge("workers", "Processes that serve requests now.")
        self.worker_restarts = registry.counter(
            "worker_restarts", "Processes started in place of one that ended."
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def certificates(self, expiries: Mapping[str, float]) -> None:
        """These certificates are in use now, and no others: their ends, Unix seconds."""
        self.certificate_expiry.clear()
        for name, end in expiries.items():
            self.certificate_expiry.labels(name).set(end)

    def _count_tasks(self) -> int:
        try:
            return len(asyncio.all_tasks(self.loop))
        except RuntimeError:  # no loop runs
            return 0
