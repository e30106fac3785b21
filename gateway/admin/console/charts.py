"""Charts as SVG: pure functions from numbers to markup.

No script and no inline style, so that they live under the strictest Content-Security-Policy;
colours are classes of the style sheet. Each is an image with a text that says what it shows. A
`chart` has axes, and its values as text, which the console's script shows where one points at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from gateway.history.spans import TimeAxis

WIDTH, HEIGHT = 240, 44
PAD = 2
HEAT_LEVELS = 5
NOTHING = "\u2013"


def chart(
    image: Markup,
    axis: TimeAxis,
    values: Sequence[str],
    *,
    name: str,
    top: str = "",
    inset: float = 0.0,
) -> Markup:
    """An image of steps with its axes: `top` is the value at its upper edge, `inset` the share of
    its width that comes before the first step. `values` are those of the steps in words."""
    start = axis.starts_at
    ticks = (start, (start + axis.ends_at) / 2, axis.ends_at)
    first, middle, last = (time.strftime("%H:%M", time.gmtime(at)) for at in ticks)
    edges = f'<span class="y">{escape(top)}</span><span class="y low">0</span>' if top else ""
    # All of it is a number, or escaped.
    return Markup(  # noqa: S704  # nosec B704
        f'<div class="chart" role="group" aria-label="{escape(name)}" data-start="{start:.0f}"'
        f' data-step="{axis.step_s:g}" data-inset="{inset:g}"'
        f' data-values="{escape("|".join(values))}">'
        f'<div class="plot">{image}{edges}</div>'
        f'<p class="x" aria-hidden="true"><span>{first}</span><span>{middle}</span>'
        f"<span>{last} UTC</span></p></div>"
    )


def line_chart(
    axis: TimeAxis,
    name: str,
    values: Sequence[float | None],
    in_words: Callable[[float | None], str],
    label: str,
    *,
    ceiling: float | None = None,
    height: int = HEIGHT,
) -> Markup:
    """A `sparkline` with its axes; `label` says beside the name what it shows."""
    top = max(highest(values), ceiling or 0.0)
    return chart(
        sparkline(values, label=f"{name}: {label}", ceiling=ceiling, height=height),
        axis,
        [in_words(value) for value in values],
        name=name,
        top=in_words(top) if top else "",
    )


def highest(values: Sequence[float | None]) -> float:
    """The highest value, 0 where there is none."""
    return max((value for value in values if value is not None), default=0.0)


def sparkline(
    values: Sequence[float | None],
    *,
    label: str,
    ceiling: float | None = None,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> Markup:
    """A line over time with the area below it; None is a gap.

    It is scaled to the highest value, or to `ceiling` where that is higher.
    """
    known = [value for value in values if value is not None]
    top = max([*known, ceiling or 0.0]) or 1.0
    step = (width - 2 * PAD) / max(1, len(values) - 1)
    room = height - 2 * PAD

    def place(at: int, value: float) -> str:
        return f"{PAD + at * step:.1f} {height - PAD - value / top * room:.1f}"

    lines, areas = [], []
    for run in _runs(values):
        points = [place(at, value) for at, value in run]
        lines.append("M" + "L".join(points))
        first_x, last_x = points[0].split()[0], points[-1].split()[0]
        floor = height - PAD
        areas.append(f"M{first_x} {floor}L" + "L".join(points) + f"L{last_x} {floor}Z")
    return _image(
        f'<path class="spark-area" d="{"".join(areas)}"/>'
        f'<path class="spark-line" d="{"".join(lines)}"/>',
        label=label,
        width=width,
        height=height,
        kind="spark",
    )


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The stretches without a gap."""
    runs: list[list[tuple[int, float]]] = []
    is_open = False
    for at, value in enumerate(values):
        if value is None:
            is_open = False
            continue
        if not is_open:
            runs.append([])
        runs[-1].append((at, value))
        is_open = True
    return runs


HEAT_CELL = (8, 9)
HEAT_LEFT = 46
"""What the names of the rows take of the width."""


def heat_strip(
    columns: Sequence[Sequence[int]],
    *,
    bounds: Sequence[float],
    label: str,
    cell: tuple[int, int] = HEAT_CELL,
) -> Markup:
    """A strip of latency over time: a column for each time, a row for each bucket, darker where
    more of the column's requests fell.

    `bounds` are the upper bounds of the buckets in seconds; each column has one count more.
    """
    across, down = cell
    rows = _rows_in_use(columns, len(bounds) + 1)
    paths: list[list[str]] = [[] for _ in range(HEAT_LEVELS)]
    for at, column in enumerate(columns):
        total = sum(column)
        for row, bucket in enumerate(reversed(rows)):
            if count := column[bucket]:
                level = min(HEAT_LEVELS - 1, int(count / total * HEAT_LEVELS))
                x, y = at * across, row * down
                paths[level].append(f"M{x} {y}h{across - 1}v{down - 1}h-{across - 1}z")
    left = HEAT_LEFT
    texts = [
        f'<text class="axis" x="{left - 6}" y="{row * down + down - 1.5}" text-anchor="end">'
        f"{escape(_bound_text(bounds, bucket))}</text>"
        for row, bucket in enumerate(reversed(rows))
        if row % 2 == 0 or len(rows) < 8
    ]
    cells = "".join(
        f'<path class="heat-{level + 1}" d="{"".join(path)}"/>'
        for level, path in enumerate(paths)
        if path
    )
    width, height = left + len(columns) * across, len(rows) * down
    background = (
        f'<rect class="heat-none" x="{left}" width="{width - left}" height="{height - 1}"/>'
    )
    return _image(
        f'{background}{"".join(texts)}<g transform="translate({left})">{cells}</g>',
        label=label,
        width=width,
        height=height,
        kind="heat",
    )


def _rows_in_use(columns: Sequence[Sequence[int]], count: int) -> range:
    """The buckets from the lowest to the highest that is not empty, at least six."""
    used = [bucket for bucket in range(count) if any(column[bucket] for column in columns)]
    first, last = (used[0], used[-1]) if used else (2, 8)
    while last - first < min(5, count - 1):
        first, last = max(0, first - 1), min(count - 1, last + 1)
    return range(first, last + 1)


def _bound_text(bounds: Sequence[float], bucket: int) -> str:
    return f"> {duration(bounds[-1])}" if bucket == len(bounds) else duration(bounds[bucket])


def _image(content: str, *, label: str, width: float, height: float, kind: str) -> Markup:
    # The content is made of numbers and of what was escaped above.
    return Markup(  # noqa: S704  # nosec B704
        f'<svg class="{kind}" role="img" aria-label="{escape(label)}" viewBox="0 0 {width:g}'
        f' {height:g}" preserveAspectRatio="none">{content}</svg>'
    )


def duration(seconds: float | None) -> str:
    """Format seconds: three digits at most."""
    if seconds is None:
        return NOTHING
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            value = seconds / size
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    raise AssertionError


def number(value: float | None) -> str:
    """Format a number, with thin spaces between thousands."""
    if value is None:
        return NOTHING
    if value and abs(value) < 10 and value != int(value):
        return f"{value:.1f}"
    return f"{value:,.0f}".replace(",", "\u202f")


def percent(share: float | None) -> str:
    """Format a share (0 to 1) as a percentage."""
    if share is None:
        return NOTHING
    value = share * 100
    return f"{value:.0f} %" if value in {0, 100} or value >= 10 else f"{value:.2g} %"
