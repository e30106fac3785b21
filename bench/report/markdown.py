"""Documents that quote results: the generated parts are rewritten, the prose around them stays."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bench.processes import BenchError
from bench.report.quoted import quoted_tables
from bench.report.tables import Table, make_tables
from bench.results import Results
from bench.workloads import WORKLOADS

_PART = re.compile(
    r"(?P<begin><!-- bench:(?P<name>[a-z0-9-]+) -->\n).*?(?P<end><!-- /bench -->)", re.DOTALL
)
_MARK = re.compile(r"<!-- (/?bench\b.*?) -->")
ABSENT = "Not measured in this run.\n"


def render_markdown(document: str, results: Results, others: Iterable[Table] = ()) -> str:
    """The document with what stands between `<!-- bench:NAME -->` and `<!-- /bench -->` replaced.

    Raises `BenchError` for a name that nothing is known by, and for marks that don't pair.
    """
    known = (*make_tables(results), *quoted_tables(results), *others)
    tables = {table.name: table for table in known}

    def fill_in(match: re.Match[str]) -> str:
        return match["begin"] + _render(match["name"], tables, results) + match["end"]

    if len(_MARK.findall(document)) != 2 * len(_PART.findall(document)):
        raise BenchError("the marks of generated parts don't pair: see bench/README.md")
    return _PART.sub(fill_in, document)


NAMES = {
    *("conditions", "targets", "http2", "growth"),
    *(workload.name for workload in WORKLOADS),
    *(
        "latency",
        "gateway",
        "settings",
        "skipped",
        "instructions",
        "comparison",
        "sizing",
        "aiohttp",
        "attacks",
        "stores",
    ),
}


def _render(name: str, tables: dict[str, Table], results: Results) -> str:
    if name not in NAMES:
        raise BenchError(f"there is no part {name!r}; there are {', '.join(sorted(NAMES))}")
    if name == "instructions":
        return f"```\n{results.instructions}\n```\n" if results.instructions else ABSENT
    table = tables.get(name)
    if table is None:
        return "Nothing.\n" if name == "skipped" else ABSENT
    return _as_list(table) if name == "settings" else _as_table(table)


def _as_table(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    text = "\n".join("| " + " | ".join(map(_escape, line)) + " |" for line in lines) + "\n"
    return text + (f"\n{table.note}\n" if table.note else "")


def _as_list(table: Table) -> str:
    """A row as an item: its cells are sentences, too long for a table."""
    items = []
    for row in table.rows:
        cells = zip(table.columns[1:], row[1:], strict=True)
        items.append(f"- **{row[0]}**: " + "; ".join(f"{name}: {cell}" for name, cell in cells))
    return "\n".join(items) + "\n"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
