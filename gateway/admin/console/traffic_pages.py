"""Requests by route and by client, within a span of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from gateway.admin.console.charts import (
    duration,
    highest,
    line_chart,
    number,
    percent,
    sparkline,
)
from gateway.admin.console.exports import csv_file, iso
from gateway.admin.console.overview import ERROR_CEILING
from gateway.admin.console.site import Site, Visit
from gateway.admin.console.status_pages import chosen_span
from gateway.admin.status import By, GatewayStatus
from gateway.history.breakdown import MAX_NAMES, OTHERS, Counts, add_up
from gateway.history.spans import SPANS, Span, TimeAxis

COLUMNS = ("requests", "rejected", "failed", "mean_seconds")
ROW_STEPS = 3
"""Steps of the history that make one of the chart in a row."""


class TrafficPages:
    """Pages about the requests of routes and clients."""

    def __init__(self, site: Site, gateway_status: GatewayStatus) -> None:
        self._site = site
        self._gateway_status = gateway_status

    def add_routes(self) -> None:
        """Make the pages known."""
        self._site.add_page("/traffic", self._list)
        self._site.add_page("/traffic.csv", self._export)
        self._site.add_page("/traffic/one", self._show)
        self._site.add_page("/traffic/one.csv", self._export_one)

    async def _list(self, visit: Visit) -> web.Response:
        by, span = _choice(visit)
        lengths = self._lengths(span)
        rows = [
            {"name": one.name, "counts": one, "chart": _row_chart(steps, lengths, one)}
            for one, steps in self._gateway_status.traffic(by).series(span)
        ]
        return self._site.render(
            "traffic.html",
            visit,
            by=by,
            span=span,
            spans=SPANS.values(),
            rows=rows,
            titles=TITLES,
            others=OTHERS,
            max_names=MAX_NAMES,
        )

    async def _export(self, visit: Visit) -> web.Response:
        by, span = _choice(visit)
        rows = (
            (_title(one.name), one.requests, one.rejected, one.failed, one.mean_s)
            for one in self._gateway_status.traffic(by).totals(span)
        )
        return csv_file(f"traffic-by-{by}-{span.name}.csv", (by, *COLUMNS), rows)

    async def _show(self, visit: Visit) -> web.Response:
        by, span = _choice(visit)
        name, axis = visit.request.query.get("name", ""), self._axis(span)
        steps = self._gateway_status.traffic(by).steps(name, span)
        whole = add_up(name, steps)
        return self._site.render(
            "traffic_one.html",
            visit,
            by=by,
            span=span,
            spans=SPANS.values(),
            name=name,
            title=_title(name),
            is_client=by == "client" and name != OTHERS,
            whole=whole,
            charts=_charts(steps, axis, self._lengths(span), whole),
            rows=[(at, step) for at, step in zip(axis.times, steps, strict=True) if step.requests],
        )

    async def _export_one(self, visit: Visit) -> web.Response:
        by, span = _choice(visit)
        steps = self._gateway_status.traffic(by).steps(visit.request.query.get("name", ""), span)
        rows = (
            (iso(at), step.requests, step.rejected, step.failed, step.mean_s)
            for at, step in zip(self._axis(span).times, steps, strict=True)
        )
        return csv_file(f"traffic-of-one-{by}-{span.name}.csv", ("time", *COLUMNS), rows)

    def _lengths(self, span: Span) -> list[float]:
        """Seconds of each step that are over, 0 of those before the start."""
        steps = self._gateway_status.recent.history.steps(span)
        return [step.length_s if step.is_known else 0.0 for step in steps]

    def _axis(self, span: Span) -> TimeAxis:
        history = self._gateway_status.recent.history
        return history.time_axis(span, self._site.wall_clock())


TITLES = {OTHERS: "all others", "_provider": "OAuth provider", "_none": "no route"}


def _title(name: str) -> str:
    return TITLES.get(name, name)


def _choice(visit: Visit) -> tuple[By, Span]:
    query = visit.request.query
    by: By = "client" if query.get("by") == "client" else "route"
    return by, chosen_span(query.get("range", ""))


def _rates(steps: Sequence[Counts], lengths: Sequence[float]) -> list[float | None]:
    """Requests per second of each step; None before the start."""
    return [
        step.requests / length if length else None
        for step, length in zip(steps, lengths, strict=True)
    ]


def _row_chart(steps: Sequence[Counts], lengths: Sequence[float], whole: Counts) -> Any:
    starts = range(0, len(steps), ROW_STEPS)
    joined = [add_up(whole.name, steps[at : at + ROW_STEPS]) for at in starts]
    rates = _rates(joined, [sum(lengths[at : at + ROW_STEPS]) for at in starts])
    return sparkline(
        rates,
        height=28,
        label=f"Requests per second of {_title(whole.name)}: highest {number(highest(rates))}",
    )


def _charts(
    steps: Sequence[Counts], axis: TimeAxis, lengths: Sequence[float], whole: Counts
) -> list[dict[str, Any]]:
    rates = _rates(steps, lengths)
    rejected = [step.rejected_share for step in steps]
    failed = [step.failed_share for step in steps]
    average = number(whole.requests / (sum(lengths) or 1.0))
    return [
        _chart(
            axis, "Requests per second", rates, number,
            heading=(average, f"on average; highest {number(highest(rates))}"),
        ),
        _chart(
            axis, "Rejected (4xx)", rejected, percent, ceiling=ERROR_CEILING,
            heading=(percent(whole.rejected_share), f"{number(whole.rejected)} requests"),
        ),
        _chart(
            axis, "Failed (5xx)", failed, percent, ceiling=ERROR_CEILING,
            heading=(percent(whole.failed_share), f"{number(whole.failed)} requests"),
        ),
        _chart(
            axis, "Duration", [step.mean_s for step in steps], duration,
            heading=(duration(whole.mean_s), "of a request, on average"),
        ),
    ]  # fmt: skip


def _chart(
    axis: TimeAxis,
    name: str,
    values: Sequence[float | None],
    in_words: Callable[[float | None], str],
    *,
    heading: tuple[str, str],
    ceiling: float | None = None,
) -> dict[str, Any]:
    value, note = heading
    drawn = line_chart(axis, name, values, in_words, f"{value} {note}", ceiling=ceiling)
    return {"name": name, "value": value, "note": note, "chart": drawn}
