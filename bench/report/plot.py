"""The plot of performance.md: an SVG that follows the reader's light or dark scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape

from bench.figures import Figure, by_round, p99_us, requests_per_s, steady_by_round, summarise
from bench.report.numbers import show_number
from bench.report.tables import show_rate
from bench.results import Results
from bench.targets import CACHED, GATEWAY
from bench.workloads import GET, VARIED

WIDTH = 760
LABELS = 300
"""Where bars begin."""
BARS = 360
"""How long the longest one is."""
STEP = 26
BAR = 14
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .quiet { fill: #57606a }
  .bar { fill: #afb8c1 }
  .ours { fill: #0969da }
  .range { stroke: #24292f; stroke-width: 1.2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .quiet { fill: #8d96a0 }
    .bar { fill: #484f58 }
    .ours { fill: #4493f8 }
    .range { stroke: #e6edf3 }
  }
"""


def render_plot(results: Results) -> str:
    """Requests per second at saturation, CPU time per request, and p99 at half of saturation."""
    # Results from before there was the workload that varies have the other one only.
    has_varied = any(one.workload == VARIED.name for one in results.samples)
    workload = VARIED if has_varied else GET
    panels = [
        (
            f"Requests per second on one core: {workload.title}",
            "higher is better",
            _throughput(results, workload.name),
        ),
        (
            f"CPU microseconds per request: {workload.title}",
            "lower is better",
            _cost(results, workload.name),
        ),
        (
            "p99 in microseconds at a constant rate, from when a request was due",
            "lower is better",
            _latency(results),
        ),
    ]
    drawn, top = [], 10
    for title, hint, bars in panels:
        if bars:
            drawn += list(_draw(title, hint, bars, top))
            top += 62 + STEP * len(bars)
    machine = results.machine
    foot = f"{machine.date}, commit {machine.commit}, {results.plan.mode} run; lines: min to max"
    drawn.append(f'<text class="quiet" x="10" y="{top + 12}">{escape(foot)}</text>')
    height = top + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" role="img" aria-label="Measured performance">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(drawn) + "\n</svg>\n"
    )


Bars = Mapping[str, tuple[Figure, bool]]
"""By label: the figure, and whether it is ours."""


def _throughput(results: Results, workload: str) -> Bars:
    return _sorted(
        {
            one.title: (figure, one.name.startswith(GATEWAY))
            for one in results.subjects
            if (figure := summarise(by_round(results, one.name, workload, requests_per_s).values()))
        },
        highest_first=True,
    )


def _cost(results: Results, workload: str) -> Bars:
    return _sorted(
        {
            one.title: (figure, one.name.startswith(GATEWAY))
            for one in results.subjects
            if (
                figure := summarise(
                    by_round(results, one.name, workload, lambda sample: sample.cpu_us).values()
                )
            )
        },
        highest_first=False,
    )


def _latency(results: Results) -> Bars:
    groups = (
        (GATEWAY, "own", "this gateway, half of its load"),
        (CACHED, "gateway", "nginx cached auth, the same rate"),
        (CACHED, "own", "nginx cached auth, half of its own"),
    )
    return {
        label: (figure, subject == GATEWAY)
        for subject, at, label in groups
        if (figure := summarise(steady_by_round(results, subject, at, p99_us).values()))
    }


def _sorted(bars: Bars, *, highest_first: bool) -> Bars:
    return dict(sorted(bars.items(), key=lambda entry: entry[1][0].median, reverse=highest_first))


def _draw(title: str, hint: str, bars: Bars, top: int) -> Iterator[str]:
    yield f'<text class="title" x="10" y="{top + 16}">{escape(title)}</text>'
    yield f'<text class="quiet" x="10" y="{top + 34}">{escape(hint)}</text>'
    longest = max(figure.high for figure, _ in bars.values()) or 1.0
    for number, (label, (figure, is_ours)) in enumerate(bars.items()):
        y = top + 46 + STEP * number
        length, low, high = (
            LABELS + BARS * value / longest for value in (figure.median, figure.low, figure.high)
        )
        middle = y + BAR / 2
        kind = "ours" if is_ours else "bar"
        text = show_rate(figure.median) if longest >= 1000 else show_number(figure.median)
        yield f'<text x="{LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>'
        yield (
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length - LABELS:.1f}"'
            f' height="{BAR}" rx="2"/>'
        )
        yield (
            f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.0f}"'
            f' y2="{middle:.0f}"/>'
        )
        yield f'<text x="{max(length, high) + 8:.1f}" y="{y + 12}">{text}</text>'
