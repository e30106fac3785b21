"""Overview, routes and upstreams, events, audit log: the read-only pages."""

from __future__ import annotations

from typing import Any, get_args

from aiohttp import web

from gateway.admin.accounts.audit import Entry
from gateway.admin.console.exports import csv_file, iso
from gateway.admin.console.overview import QUANTILES, overview
from gateway.admin.console.route_traffic import METRIC, read_traffic
from gateway.admin.console.site import Site, Visit
from gateway.admin.explain import explain_request, read_header_lines
from gateway.admin.probes import RenderMetrics
from gateway.admin.problems import ApiError
from gateway.admin.status import GatewayStatus, describe_upstreams
from gateway.history.events import Kind
from gateway.history.spans import SHORTEST, SPANS, Span

AUDIT_PAGE = 50
MAX_EXPORTED = 10_000
"""Entries of the audit log in one file."""
MAX_TEXT = 100
AUDIT_SPANS = {
    span.name: span
    for span in (
        Span("24h", "24 h", 86400.0),
        Span("7d", "7 d", 7 * 86400.0),
        Span("30d", "30 d", 30 * 86400.0),
    )
}
EVENT_COLUMNS = (
    "first", "last", "kind", "what", "status", "route", "times", "client", "source",
)  # fmt: skip
OVERVIEW_COLUMNS = (
    "time", "requests", "errors", "p50_seconds", "p95_seconds", "p99_seconds",
    "upstream_p50_seconds", "upstream_p95_seconds", "upstream_p99_seconds", "cache_hit_ratio",
    "inflight_requests", "tokens_issued",
)  # fmt: skip
AUDIT_COLUMNS = ("time", "actor", "action", "target", "source", "detail")
KINDS: tuple[Kind, ...] = get_args(Kind)


def chosen_span(name: str) -> Span:
    """The span of a query, the shortest where it names none."""
    return SPANS.get(name, SHORTEST)


class StatusPages:
    """Pages about the gateway as a whole."""

    def __init__(self, site: Site, state: GatewayStatus, render_metrics: RenderMetrics) -> None:
        self._site = site
        self._gateway_status = state
        self._render_metrics = render_metrics

    def add_routes(self) -> None:
        """Make the pages known."""
        self._site.add_page("", self._show_overview)
        self._site.add_page("/overview.csv", self._export_overview)
        self._site.add_page("/routes", self._show_routes)
        if self._gateway_status.explain is not None:
            self._site.add_form("/routes", self._explain_request)
        self._site.add_page("/events", self._show_events)
        self._site.add_page("/events.csv", self._export_events)
        self._site.add_page("/audit", self._show_audit)
        self._site.add_page("/audit.csv", self._export_audit)

    async def _show_overview(self, visit: Visit) -> web.Response:
        checks = await self._gateway_status.readiness()
        values = self.overview(visit.request.query.get("range", ""))
        return self._site.render("overview.html", visit, checks=checks, **values)

    def overview(self, span: str) -> dict[str, Any]:
        """Return the values of the live part of the overview."""
        return overview(self._gateway_status, chosen_span(span), self._site.wall_clock())

    async def _export_overview(self, visit: Visit) -> web.Response:
        span = chosen_span(visit.request.query.get("range", ""))
        history = self._gateway_status.recent.history
        axis, steps = history.time_axis(span, self._site.wall_clock()), history.steps(span)
        rows = (
            (
                iso(at), step.requests, step.errors,
                *map(step.quantile, QUANTILES),
                *map(step.upstream_quantile, QUANTILES),
                step.hit_ratio, step.inflight, step.tokens_issued,
            )
            for at, step in zip(axis.times, steps, strict=True)
            if step.is_known
        )  # fmt: skip
        return csv_file(f"overview-{span.name}.csv", OVERVIEW_COLUMNS, rows)

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
        query = visit.request.query
        values = self.events(query.get("kind", ""), query.get("range", ""))
        return self._site.render("events.html", visit, **values)

    async def _export_events(self, visit: Visit) -> web.Response:
        query = visit.request.query
        rows = (
            (
                iso(event.at), iso(event.last_at), event.kind, event.title, event.status or "",
                event.route, event.count, event.who, event.address,
            )
            for event in self.events(query.get("kind", ""), query.get("range", ""))["events"]
        )  # fmt: skip
        return csv_file("events.csv", EVENT_COLUMNS, rows)

    def events(self, kind: str, span: str) -> dict[str, Any]:
        """Return the values of the live part of the events page."""
        chosen = next((known for known in KINDS if known == kind), None)
        within = SPANS.get(span)
        since = 0.0 if within is None else self._site.wall_clock() - within.seconds
        return {
            "events": self._gateway_status.events(chosen, since=since),
            "kind": chosen or "",
            "kinds": KINDS,
            "span": within.name if within else "",
            "spans": SPANS.values(),
        }

    async def _show_audit(self, visit: Visit) -> web.Response:
        text, span, since = self._audit_filter(visit)
        after = visit.request.query.get("after", "")
        entries, more = await self._site.accounts.audit.search(
            text=text, since=since, after=after, limit=AUDIT_PAGE
        )
        return self._site.render(
            "audit.html",
            visit,
            entries=entries,
            more=more,
            after=after,
            text=text,
            span=span,
            spans=AUDIT_SPANS.values(),
        )

    async def _export_audit(self, visit: Visit) -> web.Response:
        text, _, since = self._audit_filter(visit)
        entries: list[Entry] = []
        after = ""
        while len(entries) < MAX_EXPORTED:
            found, after = await self._site.accounts.audit.search(
                text=text, since=since, after=after, limit=MAX_EXPORTED - len(entries)
            )
            entries += found
            if not after:
                break
        rows = (
            (iso(one.at), one.actor, one.action, one.target, one.address, one.detail)
            for one in entries
        )
        return csv_file("audit.csv", AUDIT_COLUMNS, rows)

    def _audit_filter(self, visit: Visit) -> tuple[str, str, float]:
        """Text, name of the span, and its beginning as Unix time."""
        query = visit.request.query
        text, span = query.get("q", "").strip()[:MAX_TEXT], query.get("range", "")
        if span not in AUDIT_SPANS:
            return text, "", 0.0
        return text, span, self._site.wall_clock() - AUDIT_SPANS[span].seconds
