"""Stores full of tokens are measured, and the figures become a table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.processes.postgresql import programs_or_skip
from support.tiers import slow

from bench import stores
from bench.report.quoted import stores_table
from bench.results import read_stores


@slow("bench")
async def test_each_store_is_filled_looked_up_in_and_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs_or_skip()
    results = tmp_path / "store.json"
    arguments = ["--tokens", "2000", "--calls", "200", "--results", str(results)]
    monkeypatch.setattr(sys, "argv", ["stores", *arguments])
    await stores.main()
    found = read_stores(results)
    assert [one.name for one in found.stores] == ["SQLite", "Redis", "PostgreSQL"]
    for one in found.stores:
        assert one.bytes_per_token
        assert one.filled_per_s
        for calls in (one.lookup, one.lookup_at_once, one.lookup_unknown, one.issue):
            assert calls is not None
            assert calls.per_s
    table = stores_table(found)
    assert [row[0] for row in table.rows] == [
        "SQLite, file", "Redis, memory", "PostgreSQL, table and indexes",
    ]  # fmt: skip
