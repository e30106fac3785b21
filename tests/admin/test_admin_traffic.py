"""What the gateway did lately: by route and client, over time, in pages, files and the API."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.clients.console_visitor import Visitor
from support.deadlines import until
from support.running_gateway import RunningGateway

from gateway.admin.accounts.audit import MAX_SCANNED, AuditLog, Entry
from gateway.history.breakdown import Counts
from gateway.history.events import Events
from gateway.history.sampling import Slice
from gateway.history.spans import SPANS, STEPS


@contextmanager
def long_ago(log: Events | AuditLog, seconds: float) -> Iterator[None]:
    """What is added to a log meanwhile is as old as that."""
    wall_clock = log._wall_clock
    then = wall_clock() - seconds
    log._wall_clock = lambda: then
    yield
    log._wall_clock = wall_clock


async def traffic(gateway: RunningGateway, by: str) -> dict[str, Counts]:
    status, body = await gateway.call_api("GET", f"/api/v1/traffic?by={by}&range=1h")
    assert (status, body["by"], body["range"]) == (200, by, "1h")
    return {
        row["name"]: Counts(row["name"], row["requests"], row["rejected"], row["failed"])
        for row in body["traffic"]
    }


async def use_routes(gateway: RunningGateway) -> None:
    """Send two requests of a client, one of them rejected, and one without a token; and wait until
    they are in the history."""
    token = await gateway.token("=shop")
    headers = {"Authorization": f"Bearer {token}"}
    for path, status, sent in (
        ("/api/x", 200, headers), ("/api/x", 401, {}), ("/write", 404, {}),
    ):  # fmt: skip
        async with gateway.session.get(gateway.url(path), headers=sent) as response:
            assert response.status == status

    async def is_counted() -> bool:
        return "_none" in await traffic(gateway, "route")

    await until(is_counted)


async def test_requests_are_counted_by_route_and_by_client(gateway: RunningGateway) -> None:
    await use_routes(gateway)
    routes = await traffic(gateway, "route")
    assert routes["api"] == Counts("api", 2, 1, 0)
    assert routes["_none"] == Counts("_none", 1, 1, 0)
    assert await traffic(gateway, "client") == {"=shop": Counts("=shop", 1, 0, 0)}
    status, one = await gateway.call_api("GET", "/api/v1/traffic/one?by=route&name=api&range=24h")
    assert (status, one["step_seconds"], len(one["steps"])) == (200, 480, STEPS)
    assert sum(step["requests"] for step in one["steps"]) == 2
    assert one["steps"][-1]["mean_seconds"] is not None or one["steps"][-2]["mean_seconds"]
    status, history = await gateway.call_api("GET", "/api/v1/history?range=6h")
    assert (status, history["step_seconds"]) == (200, 120)
    assert sum(step["requests"] for step in history["steps"]) >= 4
    assert len(history["steps"]) < STEPS, "nothing of the time before the start"
    status, problem = await gateway.call_api("GET", "/api/v1/traffic?range=2h")
    assert (status, problem["reason"]) == (400, "range")
    assert "one of 15m, 1h, 24h, 6h" in problem["detail"]


async def test_pages_of_traffic_have_charts_ranges_and_files(
    gateway: RunningGateway, alice: Visitor
) -> None:
    await use_routes(gateway)
    page = await alice.get("/console/traffic?range=1h")
    assert ">OAuth provider</a>" in page
    assert ">no route</a>" in page
    assert re.search(r'range=1h" aria-current="true"', page)
    assert "/console/traffic/one?by=route&amp;name=api&amp;range=1h" in page
    page = await alice.get("/console/traffic?by=client&range=1h")
    assert "name=%3Dshop&amp;" in page
    page = await alice.get("/console/traffic/one?by=client&name=%3Dshop&range=1h")
    assert page.count('class="chart"') == 4
    assert 'href="/console/clients/%3Dshop"' in page
    assert "Its traffic" in await alice.get("/console/clients/%3Dshop")
    for path, columns in (
        ("traffic.csv?by=client&range=1h", "client"),
        ("traffic/one.csv?by=route&name=api&range=1h", "time"),
        ("overview.csv?range=1h", "time"),
    ):
        rows = read_csv(await alice.get(f"/console/{path}"))
        assert rows[0][0] == columns
        assert len(rows) > 1
        assert alice.headers["Content-Disposition"].startswith("attachment")
    rows = read_csv(await alice.get("/console/traffic.csv?by=client&range=1h"))
    assert rows[1][:2] == ["'=shop", "1"], "no formula, and numbers are numbers"


async def test_rates_are_those_of_the_time_since_the_start(
    gateway: RunningGateway, alice: Visitor
) -> None:
    history = gateway.gateway._admin.recent.history
    now = history._clock()
    for second in range(300):
        history._clock = lambda at=now + second: at  # type: ignore[misc]
        history.add(9, Slice(routes=[Counts("busy", 50)]))
    page = await alice.get("/console/traffic/one?by=route&name=busy&range=24h")
    shown = re.search(r'class="value">(\d+) <', page)
    assert shown is not None
    assert 45 <= int(shown[1]) <= 51, "not spread over a day"


async def test_overview_is_of_the_range_that_was_chosen(
    gateway: RunningGateway, alice: Visitor
) -> None:
    page = await alice.get("/console?range=24h")
    assert re.search(r'range=24h" aria-current="true"', page)
    assert 'data-live="/console/live/overview?range=24h"' in page
    assert 'data-step="480"' in page
    assert 'data-step="5"' in await alice.get("/console?range=nonsense")


async def test_events_are_of_the_range_that_was_chosen(
    gateway: RunningGateway, alice: Visitor
) -> None:
    events = gateway.gateway._admin.recent.events
    now = events._wall_clock()
    with long_ago(events, 7200):
        events.add("refusal", "of-long-ago")
    events.add("refusal", "of-just-now")
    assert "of-long-ago" in await alice.get("/console/events")
    for path in ("events?range=1h", "events?kind=refusal&range=1h", "events.csv?range=1h"):
        page = await alice.get(f"/console/{path}")
        assert "of-just-now" in page
        assert "of-long-ago" not in page
    assert "of-long-ago" in await alice.get("/console/events?range=6h")
    _, reported = await gateway.call_api("GET", f"/api/v1/events?since={now - 3600}")
    assert [event["title"] for event in reported["events"]] == ["of-just-now"]


async def test_audit_log_is_searched_and_saved_as_a_file(
    gateway: RunningGateway, alice: Visitor
) -> None:
    audit = gateway.gateway._admin.accounts.audit
    with long_ago(audit, 2 * 86_400):
        await audit.note("bob", "192.0.2.1", "client.create", "=formula")
    for number in range(60):
        await audit.note("carol", "192.0.2.2", "client.renew", f"client-{number}")
    page = await alice.get("/console/audit?q=BOB")
    assert "=formula" in page
    assert "carol" not in page
    assert "No entry fits" in await alice.get("/console/audit?q=bob&range=24h")
    page = await alice.get("/console/audit?q=carol&range=7d")
    older = re.search(r'rel="next" href="([^"]+)"', page)
    assert older is not None
    assert page.count("client.renew") == 50
    rest = await alice.get(older[1].replace("&amp;", "&"))
    assert rest.count("client.renew") == 10
    rows = read_csv(await alice.get("/console/audit.csv?q=client"))
    assert rows[0] == ["time", "actor", "action", "target", "source", "detail"]
    assert len(rows) == 62
    assert rows[-1][1:5] == ["bob", "client.create", "'=formula", "192.0.2.1"]
    _, found = await gateway.call_api("GET", "/api/v1/audit?q=carol&limit=55")
    assert len(found["entries"]) == 55
    _, rest_of = await gateway.call_api("GET", f"/api/v1/audit?q=carol&after={found['next']}")
    assert (len(rest_of["entries"]), rest_of["next"]) == (5, None)


async def test_search_of_a_long_audit_log_goes_on_where_it_stopped(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.admin.accounts.audit.MAX_SCANNED", 20)
    monkeypatch.setattr("gateway.admin.accounts.audit._SCAN", 10)
    assert MAX_SCANNED >= 1000
    audit = gateway.gateway._admin.accounts.audit
    await audit.note("needle", "", "client.create")
    for number in range(45):
        await audit.note("hay", "", "client.renew", str(number))
    found: list[Entry] = []
    after, searches = "", 0
    while True:
        page, after = await audit.search(text="needle", after=after)
        found += page
        searches += 1
        if not after:
            break
    assert [entry.actor for entry in found] == ["needle"]
    assert searches == 3


def test_spans_are_documented() -> None:
    """docs/guides/console.md names them."""
    assert list(SPANS) == ["15m", "1h", "6h", "24h"]


def read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))
