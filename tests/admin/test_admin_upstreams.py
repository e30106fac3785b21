"""How upstreams are, told of several processes together."""

from __future__ import annotations

from dataclasses import replace

from gateway.admin.status import describe_upstreams
from gateway.upstream.status import BreakerState, EndpointState, UpstreamState

UP = EndpointState("http://a:1", "", True, "", 0.0, 2, 3, 1, 1.0, 0)
DOWN = replace(UP, is_up=False, reason="consecutive_5xx", seconds_left=12.34, active=0, ejections=2)
BREAKER = BreakerState("max_requests", 2, 10, False, 1)


def test_what_processes_report_is_added_up_and_their_verdicts_are_counted() -> None:
    one = UpstreamState("main", "round_robin", (UP,), (BREAKER,))
    two = UpstreamState("main", "round_robin", (DOWN,), (replace(BREAKER, is_open=True),))
    other = UpstreamState("other", "random_two", (), ())
    main, last = describe_upstreams([[one, other], [two]])
    assert (main["processes"], main["active"], main["idle"]) == (2, 2, 6)
    (endpoint,) = main["endpoints"]
    assert (endpoint["up_in"], endpoint["processes"]) == (1, 2)
    assert (endpoint["reasons"], endpoint["seconds_left"]) == (["consecutive_5xx"], 12.3)
    assert endpoint["ejections"] == 2
    assert main["breakers"] == [
        {"breaker": "max_requests", "used": 4, "limit": 20, "open_in": 1, "overflows": 2}
    ]
    assert (last["name"], last["endpoints"]) == ("other", [])


def test_nothing_is_reported_before_a_process_has_reported() -> None:
    assert describe_upstreams([]) == []
