"""Tables as CSV files (RFC 4180)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from aiohttp import web


def csv_file(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> web.Response:
    """A response that a browser saves as `name`."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(columns)
    for row in rows:
        table.writerow([_cell(cell) for cell in row])
    return web.Response(
        body=text.getvalue().encode("utf-8", "replace"),
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        },
    )


def iso(at: float) -> str:
    """A Unix time in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _cell(value: object) -> object:
    """Text that no spreadsheet takes for a formula: clients choose some of it."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
