"""What the admin listener tells of the gateway, as plain values."""

from __future__ import annotations

from gateway.admin.status import GatewayStatus, as_event, describe_now
from gateway.history.ring import Recent
from gateway.history.sampling import Slice
from gateway.reloads import Change, Reload


async def _ready() -> dict[str, str]:
    return {}


class _Reloads:
    async def reload(self, trigger: object) -> Reload:
        raise NotImplementedError

    def recent(self) -> list[Reload]:
        return [Reload(5.0, "file", "ok", 0.1, changes=(Change("routes[a].auth", "x", "y"),))]

    def configuration(self) -> list[tuple[str, str]]:
        return []


def test_reloads_are_events_that_report_what_changed_or_what_was_wrong() -> None:
    gateway_status = GatewayStatus(Recent(), _ready, reloads=_Reloads())
    gateway_status.recent.events.add("store", "The store does not respond")
    (event,) = gateway_status.events("reload")
    assert (event.is_bad, event.detail) == (False, "routes[a].auth: x -> y")
    assert [event.kind for event in gateway_status.events()] == ["store", "reload"]
    refused = as_event(Reload(6.0, "signal", "error", 0.1, problems=("a.yaml:1: x: wrong",)))
    assert (refused.is_bad, refused.detail) == (True, "a.yaml:1: x: wrong")


def test_nothing_is_reported_as_nothing_and_not_as_zero() -> None:
    gateway_status = GatewayStatus(Recent(), _ready)
    now = describe_now(gateway_status)
    assert (now["error_share"], now["cache_hit_ratio"]) == (None, None)
    assert now["request_seconds"] == {"p50": None, "p95": None, "p99": None}
    gateway_status.recent.receive(1, Slice(is_store_up=False, inflight=3))
    now = describe_now(gateway_status)
    assert (now["store"], now["inflight_requests"]) == ("unavailable", 3)


def test_routes_that_name_a_client_are_found() -> None:
    rows = [{"name": "a", "clients": ["shop"]}, {"name": "b", "clients": []}]
    gateway_status = GatewayStatus(Recent(), _ready, routes=lambda: [*rows, rows[0]])
    assert gateway_status.routes_for_client("shop") == ["a"]
    assert gateway_status.routes_for_client("till") == []
