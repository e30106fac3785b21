"""The overview: tiles, latencies and the heat strip of a span of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gateway.admin.console.charts import (
    HEAT_CELL,
    HEAT_LEFT,
    chart,
    duration,
    heat_strip,
    line_chart,
    number,
    percent,
)
from gateway.admin.status import GatewayStatus, describe_now
from gateway.history.ring import Step, join
from gateway.history.spans import SPANS, Span
from gateway.metrics import DURATION_BUCKETS_S

LATEST_EVENTS = 6
HEAT_STEPS = 2
"""Steps of the history that make one column of the heat strip."""
ERROR_CEILING = 0.05
QUANTILES = (0.5, 0.95, 0.99)


def overview(gateway_status: GatewayStatus, span: Span, now: float) -> dict[str, Any]:
    """Return the values of the live part of the overview; `now` is Unix time."""
    view = _View(gateway_status, span, now)
    return {
        "now": describe_now(gateway_status),
        "store_kind": gateway_status.store_kind,
        "tiles": list(view.tiles()),
        "latencies": [view.latency("Gateway", is_upstream=False),
                      view.latency("Upstreams", is_upstream=True)],
        "heat": view.heat(),
        "span": span,
        "spans": SPANS.values(),
        "events": gateway_status.events()[:LATEST_EVENTS],
    }  # fmt: skip


class _View:
    def __init__(self, gateway_status: GatewayStatus, span: Span, now: float) -> None:
        self._span = span
        self._history = gateway_status.recent.history
        self._steps = self._history.steps(span)
        self._whole = join(self._steps)
        self._last = self._history.steps()[-1]
        self._minute = gateway_status.last_minute()
        self._axis = self._history.time_axis(span, now)

    def _chart(
        self,
        name: str,
        values: Sequence[float | None],
        in_words: Callable[[float | None], str],
        label: str,
        **drawing: Any,
    ) -> Any:
        # Of the time before the start there is nothing to show.
        known = [
            value if step.is_known else None
            for step, value in zip(self._steps, values, strict=True)
        ]
        return line_chart(self._axis, name, known, in_words, label, **drawing)

    def tiles(self) -> Iterator[dict[str, Any]]:
        """A tile for each number that is watched."""
        steps, whole, minute, title = self._steps, self._whole, self._minute, self._span.title
        rates = [step.rate for step in steps]
        top = f"highest {number(max(rates))}"
        yield {
            "name": "Requests per second",
            "value": number(self._last.rate),
            "note": top,
            "chart": self._chart(
                "Requests per second", rates, number, f"now {number(self._last.rate)}, {top}"
            ),
        }
        share, over = percent(minute.error_share), percent(whole.error_share)
        yield {
            "name": "Error share",
            "value": share,
            "note": f"500 and above, last minute; {over} in {title}",
            "is_bad": bool(minute.error_share and minute.error_share >= 0.01),
            "chart": self._chart(
                "Error share",
                [step.error_share for step in steps],
                percent,
                f"last minute {share}, {over} in {title}",
                ceiling=ERROR_CEILING,
            ),
        }
        ratio = percent(minute.hit_ratio)
        yield {
            "name": "Token cache hits",
            "value": ratio,
            "note": f"of {number(minute.cache_lookups)} look-ups, last minute",
            "chart": self._chart(
                "Token cache hits",
                [step.hit_ratio for step in steps],
                percent,
                f"last minute {ratio}",
                ceiling=1.0,
            ),
        }
        inflight = self._history.inflight
        yield {
            "name": "In flight",
            "value": number(inflight),
            "note": "requests in flight",
            "chart": self._chart(
                "In flight", [step.inflight for step in steps], number, f"now {inflight} requests"
            ),
        }
        total = f"{number(whole.tokens_issued)} in {title}"
        yield {
            "name": "Tokens issued",
            "value": number(minute.tokens_issued),
            "note": f"last minute, by this gateway; {total}",
            "chart": self._chart(
                "Tokens issued", [step.tokens_issued for step in steps], number, total
            ),
        }

    def latency(self, name: str, *, is_upstream: bool) -> dict[str, Any]:
        """A row for each quantile."""

        def of(step: Step, q: float) -> float | None:
            return step.upstream_quantile(q) if is_upstream else step.quantile(q)

        rows = []
        for q in QUANTILES:
            label, now = f"p{round(q * 100)}", duration(of(self._minute, q))
            values = [of(step, q) for step in self._steps]
            drawn = self._chart(
                f"{name} {label}", values, duration, f"last minute {now}", height=28
            )
            rows.append({"name": label, "value": now, "chart": drawn})
        return {"name": name, "rows": rows}

    def heat(self) -> Any:
        """The heat strip of latency."""
        steps, whole = self._steps, self._whole
        columns = [join(steps[at : at + HEAT_STEPS]) for at in range(0, len(steps), HEAT_STEPS)]
        image = heat_strip(
            [column.durations for column in columns],
            bounds=DURATION_BUCKETS_S,
            label=f"Latency of requests over {self._span.title}: {whole.requests} requests, half "
            f"of them within {duration(whole.quantile(0.5))}, 99 of 100 within "
            f"{duration(whole.quantile(0.99))}",
        )
        return chart(
            image,
            self._axis.coarser(HEAT_STEPS),
            [_in_words(column) for column in columns],
            name="Latency of requests",
            inset=HEAT_LEFT / (HEAT_LEFT + len(columns) * HEAT_CELL[0]),
        )


def _in_words(column: Step) -> str:
    if not column.requests:
        return "no requests"
    quantiles = (f"p{round(q * 100)} {duration(column.quantile(q))}" for q in QUANTILES)
    return f"{number(column.requests)} requests, {', '.join(quantiles)}"
