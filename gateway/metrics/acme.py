"""Metrics of certificates by ACME."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.metrics.registry import Registry

FAILURES: Sequence[str] = (
    "unreachable", "rate_limited", "challenge", "rejected", "timeout", "protocol", "certificate",
    "sealed", "internal",
)  # fmt: skip


class AcmeMetrics:
    """Certificates issued, and attempts that failed."""

    def __init__(self, registry: Registry) -> None:
        self.issued = registry.counter("acme_certificates_issued", "Certificates issued by ACME.")
        self.failures = registry.tally(
            "acme_failures",
            "Attempts to get or to load a certificate by ACME that failed, by reason.",
            FAILURES,
            label="reason",
        )
        self.missing = registry.gauge(
            "acme_certificates_missing",
            "Names of `listen.tls.acme.domains` without a certificate that is valid now.",
        )
        self.overdue = registry.gauge(
            "acme_certificates_overdue",
            "Certificates by ACME that were due, and could not be got or renewed yet.",
        )
