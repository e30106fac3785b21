"""The report on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from bench.report.tables import Table, make_tables
from bench.results import Results


def render_text(results: Results) -> str:
    """Every table, and what the count of instructions said."""
    parts = [
        "\n".join(_wide(table) if table.name == "settings" else _narrow(table))
        for table in make_tables(results)
    ]
    if results.instructions:
        parts.append(f"Instructions per request\n\n{results.instructions}")
    return "\n\n".join(parts) + "\n"


def _narrow(table: Table) -> Iterator[str]:
    yield from (table.title, "")
    lines = [table.columns, *table.rows] if any(table.columns) else list(table.rows)
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        yield ("  " + "  ".join(cells)).rstrip()
    if table.note:
        yield f"  {table.note}"


def _wide(table: Table) -> Iterator[str]:
    """A row as a paragraph: its cells are sentences."""
    yield from (table.title, "")
    for row in table.rows:
        cells = zip(table.columns[1:], row[1:], strict=True)
        text = f"{row[0]}: " + "; ".join(f"{name}: {cell}" for name, cell in cells)
        yield textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="    ")
