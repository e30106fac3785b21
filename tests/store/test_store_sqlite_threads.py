"""The threads of the SQLite store: writer, readers, and how results reach the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.deadlines import within
from support.stores.values import make_client

from gateway.oauth.models import (
    StoreUnavailableError,
)
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.store import SqliteStore
from gateway.store.sqlite.threads import Results


async def test_writer_replaces_a_connection_that_is_of_no_more_use(tmp_path: Path) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))
    async with within():
        with pytest.raises(StoreUnavailableError):
            await store._file.writer.run(lambda db: db.close(), is_durable=False)
        await store.clients.add_client(make_client())
        assert await store.clients.get_client("shop") == make_client()
        await store.close()


async def test_writer_outlives_a_write_that_breaks_its_transaction(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))

    def break_off(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")
        raise ValueError

    async with within():
        with pytest.raises(StoreUnavailableError, match="broken off"):
            await store._file.writer.run(break_off, is_durable=False)
        assert "a write broke its transaction" in caplog.text
        await store.clients.add_client(make_client())
        await store.close()


async def test_connections_that_read_cannot_write(tmp_path: Path) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))
    with pytest.raises(StoreUnavailableError, match="readonly"):
        await store._file.readers.run(lambda db: db.execute("DELETE FROM clients"))
    await store.close()


async def test_threads_give_way_after_each_read_and_each_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yields: list[str] = []
    monkeypatch.setattr(
        "gateway.store.sqlite.threads.os.sched_yield",
        lambda: yields.append(threading.current_thread().name),
    )
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))
    async with within():
        await store.clients.add_client(make_client())
        assert await store.clients.get_client("shop")
        await store.close()
    assert {name.partition("_")[0] for name in yields} == {"sqlite-writer", "sqlite-reader"}


async def test_thread_gives_way_after_a_read_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))
    yields: list[str] = []
    monkeypatch.setattr(
        "gateway.store.sqlite.threads.os.sched_yield",
        lambda: yields.append(threading.current_thread().name.partition("_")[0]),
    )
    async with within():
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await store._file.readers.run(lambda db: db.execute("SELECT nothing"))
        await store.close()
    assert yields == ["sqlite-reader"] * 3


async def test_loop_is_woken_once_for_all_results_that_are_ready() -> None:
    woken: list[Callable[[], None]] = []
    results = Results(cast(Any, SimpleNamespace(call_soon_threadsafe=woken.append)))
    delivered: list[int] = []
    for number in range(3):
        results.add(partial(delivered.append, number))
    (wake,) = woken
    wake()
    assert delivered == [0, 1, 2]
    results.add(partial(delivered.append, 3))
    assert len(woken) == 2


async def test_reads_at_once_each_have_their_own_result_or_error(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "a.db")

    def read(number: int, db: sqlite3.Connection) -> int:
        if number % 10 == 0:
            raise ValueError(number)
        return number

    async with within():
        found = await asyncio.gather(
            *(file.read("read", partial(read, number)) for number in range(100)),
            return_exceptions=True,
        )
        given_up = asyncio.create_task(file.read("read", partial(read, 1)))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await file.read("read", partial(read, 2)) == 2
    assert [one for one in found if isinstance(one, int)] == [n for n in range(100) if n % 10]
    assert sum(isinstance(one, ValueError) for one in found) == 10
    await file.close()
