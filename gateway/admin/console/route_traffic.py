"""Traffic by route since the start, read from the metrics of all processes."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

METRIC = "gateway_requests_total"


@dataclass(slots=True)
class RouteTraffic:
    """Requests of a route since the gateway started."""

    requests: int = 0
    rejected: int = 0
    """With a status from 400 to 499."""
    failed: int = 0
    """With a status from 500 on."""


def read_traffic(page: bytes) -> dict[str, RouteTraffic]:
    """Add the requests up, by route; `page` is in Prometheus' text format."""
    found: dict[str, RouteTraffic] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            if sample.name != METRIC or not sample.value:
                continue
            traffic = found.setdefault(sample.labels["route"], RouteTraffic())
            count, code = int(sample.value), sample.labels["code"]
            traffic.requests += count
            if code >= "500":
                traffic.failed += count
            elif code >= "400":
                traffic.rejected += count
    return found
