"""Charts as SVG: pure functions from numbers to markup.

No script and no inline style, so that they live under the strictest Content-Security-Policy;
colours are classes of the style sheet. Each is an image with a text that says what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 240, 44
PAD = 2
HEAT_LEVELS = 5
NOTHING = "\u2013"


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


def heat_strip(
    columns: Sequence[Sequence[int]],
    *,
    bounds: Sequence[float],
    label: str,
    cell: tuple[int, int] = (8, 9),
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
    left = 46
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
