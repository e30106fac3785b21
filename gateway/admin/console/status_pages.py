"""Overview, routes and upstreams, events, audit log: the read-only pages."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any, get_args

from aiohttp import web

from gateway.admin.console.charts import (
    duration,
    heat_strip,
    number,
    percent,
    sparkline,
)
from gateway.admin.console.route_traffic import METRIC, read_traffic
from gateway.admin.console.site import Site, Visit
from gateway.admin.explain import explain_request, read_header_lines
from gateway.admin.probes import RenderMetrics
from gateway.admin.problems import ApiError
from gateway.admin.status import GatewayStatus, describe_now, describe_upstreams
from gateway.history.events import Kind
from gateway.history.ring import SPAN_S, Step, join
from gateway.metrics import DURATION_BUCKETS_S

AUDIT_PAGE = 50
LATEST_EVENTS = 6
EVENT_COLUMNS = (
    "first", "last", "kind", "what", "status", "route", "times", "client", "source",
)  # fmt: skip
HEAT_STEPS = 2
"""Steps of the history that make one column of the heat strip."""
MINUTES = int(SPAN_S // 60)
KINDS: tuple[Kind, ...] = get_args(Kind)


class StatusPages:
    """Pages about the gateway as a whole."""

    def __init__(self, site: Site, state: GatewayStatus, render_metrics: RenderMetrics) -> None:
        self._site = site
        self._gateway_status = state
        self._render_metrics = render_metrics

    def add_routes(self) -> None:
        """Make the pages known."""
        self._site.add_page("", self._show_overview)
        self._site.add_page("/routes", self._show_routes)
        if self._gateway_status.explain is not None:
            self._site.add_form("/routes", self._explain_request)
        self._site.add_page("/events", self._show_events)
        self._site.add_page("/events.csv", self._export_events)
        self._site.add_page("/audit", self._show_audit)

    async def _show_overview(self, visit: Visit) -> web.Response:
        checks = await self._gateway_status.readiness()
        return self._site.render("overview.html", visit, checks=checks, **self.overview())

    def overview(self) -> dict[str, Any]:
        """Return the values of the live part of the overview."""
        state = self._gateway_status
        steps = state.recent.history.steps()
        now = describe_now(state)
        return {
            "now": now,
            "store_kind": state.store_kind,
            "tiles": list(_tiles(steps, state.last_minute(), state.recent.history.inflight)),
            "latencies": [_latency("Gateway", steps, is_upstream=False),
                          _latency("Upstreams", steps, is_upstream=True)],
            "heat": _heat(steps),
            "minutes": MINUTES,
            "events": state.events()[:LATEST_EVENTS],
        }  # fmt: skip

    async def _show_routes(self, visit: Visit) -> web.Response:
        return await self._routes(visit)

    async def _explain_request(self, visit: Visit) -> web.Response:
        assert self._gateway_status.explain is not None
        try:
            explanation = await explain_request(
                self._gateway_status.explain,
                visit.text("method").upper() or "GET",
                visit.text("url"),
                read_header_lines(visit.form.get("headers", "")),
                visit.text("source"),
            )
        except ApiError as error:
            return await self._routes(visit, error=error.detail, status=error.status)
        return await self._routes(visit, explanation=explanation)

    async def _routes(
        self,
        visit: Visit,
        *,
        explanation: dict[str, Any] | None = None,
        error: str = "",
        status: int = 200,
    ) -> web.Response:
        state = self._gateway_status
        return self._site.render(
            "routes.html",
            visit,
            status=status,
            routes=state.routes(),
            traffic=read_traffic(await self._render_metrics(names=[METRIC])),
            upstreams=describe_upstreams(state.upstream_states()),
            can_try=state.explain is not None,
            requested={"method": "GET", "url": "", "headers": "", "source": ""} | dict(visit.form),
            explanation=explanation,
            error=error,
        )

    async def _show_events(self, visit: Visit) -> web.Response:
        kind = visit.request.query.get("kind", "")
        return self._site.render("events.html", visit, **self.events(kind))

    async def _export_events(self, visit: Visit) -> web.Response:
        kind = visit.request.query.get("kind", "")
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(
            ("first", "last", "kind", "what", "status", "route", "times", "client", "source")
        )
        for event in self.events(kind)["events"]:
            cells = (
                _iso(event.at), _iso(event.last_at), event.kind, event.title, event.status or "",
                event.route, event.count, event.who, event.address,
            )  # fmt: skip
            rows.writerow([_cell(cell) for cell in cells])
        return web.Response(
            body=text.getvalue().encode(),
            headers={
                "Content-Type": "text/csv; charset=utf-8",
                "Content-Disposition": 'attachment; filename="events.csv"',
                "Cache-Control": "no-store",
            },
        )

    def events(self, kind: str) -> dict[str, Any]:
        """Return the values of the live part of the events page."""
        chosen = next((known for known in KINDS if known == kind), None)
        return {"events": self._gateway_status.events(chosen), "kind": chosen or "", "kinds": KINDS}

    async def _show_audit(self, visit: Visit) -> web.Response:
        after = visit.request.query.get("after", "")
        entries = await self._site.accounts.audit.page(after=after, limit=AUDIT_PAGE + 1)
        page = entries[:AUDIT_PAGE]
        more = page[-1].key if len(entries) > AUDIT_PAGE else ""
        return self._site.render("audit.html", visit, entries=page, more=more, after=after)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _cell(value: object) -> str:
    """Text that no spreadsheet takes for a formula: clients choose some of it."""
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _tiles(steps: list[Step], minute: Step, inflight: int) -> Any:
    last = steps[-1]
    rates = [step.rate for step in steps]
    yield {
        "name": "Requests per second",
        "value": number(last.rate),
        "note": f"highest {number(max(rates))}",
        "chart": sparkline(rates, label=f"Requests per second: now {number(last.rate)}, "
                                        f"highest {number(max(rates))}"),
    }  # fmt: skip
    errors = [step.error_share for step in steps]
    worst = max((share for share in errors if share is not None), default=None)
    yield {
        "name": "Error share",
        "value": percent(minute.error_share),
        "note": "500 and above, last minute",
        "is_bad": bool(minute.error_share and minute.error_share >= 0.01),
        "chart": sparkline(errors, ceiling=0.05, label=f"Error share: last minute "
                           f"{percent(minute.error_share)}, highest {percent(worst)}"),
    }  # fmt: skip
    ratios = [step.hit_ratio for step in steps]
    yield {
        "name": "Token cache hits",
        "value": percent(minute.hit_ratio),
        "note": f"of {number(minute.cache_lookups)} look-ups, last minute",
        "chart": sparkline(ratios, ceiling=1.0,
                           label=f"Token cache hits: last minute {percent(minute.hit_ratio)}"),
    }  # fmt: skip
    flights: list[float | None] = [step.inflight for step in steps]
    yield {
        "name": "In flight",
        "value": number(inflight),
        "note": "requests in flight",
        "chart": sparkline(flights, label=f"Requests in flight: now {inflight}"),
    }
    issued: list[float | None] = [step.tokens_issued for step in steps]
    total = join(steps).tokens_issued
    yield {
        "name": "Tokens issued",
        "value": number(minute.tokens_issued),
        "note": f"last minute, by this gateway; {number(total)} in {MINUTES} min",
        "chart": sparkline(issued, label=f"Tokens issued: {number(total)} in {MINUTES} minutes"),
    }


def _latency(name: str, steps: list[Step], *, is_upstream: bool) -> dict[str, Any]:
    minute = join(steps[-12:])
    rows = []
    for q in (0.5, 0.95, 0.99):
        values = [step.upstream_quantile(q) if is_upstream else step.quantile(q) for step in steps]
        now = minute.upstream_quantile(q) if is_upstream else minute.quantile(q)
        label = f"p{round(q * 100)}"
        rows.append(
            {
                "name": label,
                "value": duration(now),
                "chart": sparkline(values, height=28, label=f"{name} {label}: last minute "
                                                            f"{duration(now)}"),
            }
        )  # fmt: skip
    return {"name": name, "rows": rows}


def _heat(steps: list[Step]) -> Any:
    columns = [
        join(steps[at : at + HEAT_STEPS]).durations for at in range(0, len(steps), HEAT_STEPS)
    ]
    whole = join(steps)
    label = (
        f"Latency of requests over {MINUTES} minutes: {whole.requests} requests, half of them "
        f"within {duration(whole.quantile(0.5))}, 99 of 100 within {duration(whole.quantile(0.99))}"
    )
    return heat_strip(columns, bounds=DURATION_BUCKETS_S, label=label)
