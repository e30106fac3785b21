"""The threads of the SQLite store: one that writes, in groups, and a few that read.

A commit costs far more than the write in it. So the writer takes everything that
queued up while it was busy, and commits it as one transaction; each write in it stands
or falls alone, in a savepoint of its own, and its caller is notified after the commit. The
event loop is woken once for all results that are ready by then: that costs as much as a read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

from gateway.oauth.models import StoreError, StoreUnavailableError
from gateway.store.sqlite.errors import CLASSES, as_store_error

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]
Connect = Callable[[], sqlite3.Connection]
Check = Callable[[], None]
"""Raises `StoreUnavailableError` where the file is no longer the one that was opened."""

MAX_GROUP = 256
CLOSED = "the store is closed"

_log = logging.getLogger(__name__)


class Results:
    """Results on their way from threads to an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._reports: deque[Callable[[], None]] = deque()
        self._is_due = False

    def add(self, report: Callable[[], None]) -> None:
        """Have the loop call `report` soon. From any thread."""
        self._reports.append(report)
        if not self._is_due:
            self._is_due = True
            # A caller's loop may have ended with the process on its way out.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # First: what is added from here on is either found below, or has the loop called again.
        self._is_due = False
        while self._reports:
            self._reports.popleft()()


class _Caller:
    """Makes the way back to the loop of a caller."""

    def __init__(self) -> None:
        self._results: Results | None = None

    def results(self) -> Results:
        loop = asyncio.get_running_loop()
        if self._results is None or self._results.loop is not loop:
            self._results = Results(loop)
        return self._results


class _Write(Generic[Result]):
    """A write and the caller that waits for it."""

    __slots__ = ("_error", "_future", "_result", "_results", "_work", "is_durable")

    def __init__(self, work: Work[Result], results: Results, *, is_durable: bool) -> None:
        self._results = results
        self._future: asyncio.Future[Result] = results.loop.create_future()
        self._work = work
        self._result: Result | None = None
        self._error: Exception | None = None
        self.is_durable = is_durable

    async def wait(self) -> Result:
        return await self._future

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the write inside the group's transaction, standing or falling alone.

        Raises `sqlite3.Error` where the whole transaction fell, as it does on a full disk.
        """
        connection.execute("SAVEPOINT one")
        try:
            self._result = self._work(connection)
        except Exception as error:
            if not connection.in_transaction:
                raise
            self._error = error
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def finish(self, group_error: Exception | None) -> None:
        """Notify the caller, from the writer's thread."""
        error = group_error or self._error
        self._results.add(lambda: self._report(error))

    def _report(self, error: Exception | None) -> None:
        if self._future.done():  # the caller was cancelled; the write stands all the same
            return
        if error is not None:
            self._future.set_exception(as_store_error(error, is_write=True))
        else:
            self._future.set_result(self._result)  # type: ignore[arg-type]


class Writer:
    """The only thread that writes."""

    def __init__(self, connect: Connect, check: Check = lambda: None) -> None:
        """`check` is called before each transaction; what it raises fails all writes of it."""
        self._connect = connect
        self._check = check
        self._connection = connect()
        self._is_closed = False
        self._caller = _Caller()
        self._queue: SimpleQueue[_Write[object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Work[Result], *, is_durable: bool) -> Result:
        """Do `work` in a transaction and wait for the commit.

        `is_durable` writes survive a power cut once acknowledged; others survive the end
        of the process, however it ends, but a power cut may take the last of them.

        Raises what `work` raises, and `StoreUnavailableError`.
        """
        if self._is_closed:  # the queue has no reader any more
            raise StoreUnavailableError(CLOSED)
        write = _Write(work, self._caller.results(), is_durable=is_durable)
        self._queue.put(write)  # type: ignore[arg-type]
        return await write.wait()

    def _run(self) -> None:
        while group := self._take_group():
            error: Exception | None
            try:
                error = self._commit(group)
            except Exception as unforeseen:  # without this thread, all writes would hang
                _log.exception("a write broke its transaction")
                error = StoreUnavailableError(f"SQLite: {type(unforeseen).__name__}")
            for write in group:
                write.finish(error)
            give_way()
        self._connection.close()

    def _take_group(self) -> list[_Write[object]]:
        """At least one write, and all that wait; empty at the end."""
        group: list[_Write[object]] = []
        write = self._queue.get()
        while write is not None:
            group.append(write)
            if len(group) >= MAX_GROUP or self._queue.empty():
                return group
            write = self._queue.get()
        if group:
            self._queue.put(None)
        return group

    def _commit(self, group: list[_Write[object]]) -> Exception | None:
        """Commit a group. Returns why that failed."""
        connection = self._connection
        level = "FULL" if any(write.is_durable for write in group) else "NORMAL"
        try:
            self._check()
        except StoreError as error:
            return error
        try:
            connection.execute(f"PRAGMA synchronous = {level}")
            connection.execute("BEGIN IMMEDIATE")
            for write in group:
                write.run(connection)
            connection.execute("COMMIT")
        except CLASSES as error:
            self._roll_back()
            return error
        except Exception:
            self._roll_back()
            _log.exception("a write broke its transaction")
            return StoreUnavailableError("SQLite: the transaction was broken off")
        return None

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            # Fails on a connection that is of no more use.
            self._connection.execute("SELECT 1")
        except sqlite3.Error:
            self._connection.close()  # which rolls back too
            # Where that fails too, the next group fails and tries again.
            with contextlib.suppress(Exception):
                self._connection = self._connect()

    async def close(self) -> None:
        """Commit what was accepted, then end the thread."""
        self._is_closed = True
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)


def give_way() -> None:
    """Let the event loop have the core, if it waits for it: where there is no other one, a thread
    that is never without work would hold every request up for a time slice of milliseconds."""
    os.sched_yield()


class _Read(Generic[Result]):
    """A read and the caller that waits for it."""

    __slots__ = ("_future", "_results", "_work")

    def __init__(self, work: Work[Result], results: Results) -> None:
        self._results = results
        self._future: asyncio.Future[Result] = results.loop.create_future()
        self._work = work

    async def wait(self) -> Result:
        return await self._future

    @property
    def is_wanted(self) -> bool:
        """Whether the caller still waits."""
        return not self._future.cancelled()

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the read. Raises what it raises."""
        result = self._work(connection)
        self._results.add(lambda: self._report(result))

    def fail(self, error: Exception) -> None:
        """Notify the caller, from a reader's thread."""
        self._results.add(lambda: self._report_error(error))

    def _report(self, result: Result) -> None:
        if not self._future.done():
            self._future.set_result(result)

    def _report_error(self, error: Exception) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class Readers:
    """A few threads that read, each with a connection of its own."""

    def __init__(self, connect: Connect, check: Check = lambda: None, *, threads: int = 2) -> None:
        """`check` is called before each read, which what it raises fails."""
        self._connect = connect
        self._check = check
        self._is_closed = False
        self.connections: list[sqlite3.Connection] = []
        self._caller = _Caller()
        self._queue: SimpleQueue[_Read[object] | None] = SimpleQueue()
        self.threads = [
            threading.Thread(target=self._run, name=f"sqlite-reader_{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    async def run(self, work: Work[Result]) -> Result:
        """Do `work` on a snapshot. Raises `StoreUnavailableError`."""
        if self._is_closed:
            raise StoreUnavailableError(CLOSED)
        read = _Read(work, self._caller.results())
        self._queue.put(read)  # type: ignore[arg-type]
        return await read.wait()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while (read := self._queue.get()) is not None:
            if not read.is_wanted:
                continue
            try:
                self._check()
                if connection is None:
                    connection = self._open()
                read.run(connection)
            except Exception as error:  # without its threads, all reads would hang
                read.fail(as_store_error(error))
            give_way()
        if connection is not None:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = self._connect()
        # Only the writer writes: a slip here must fail rather than race with it.
        connection.execute("PRAGMA query_only = ON")
        self.connections.append(connection)
        return connection

    async def close(self) -> None:
        """Finish the reads under way, then close."""
        self._is_closed = True
        for _ in self.threads:
            self._queue.put(None)
        loop = asyncio.get_running_loop()
        for thread in self.threads:
            await loop.run_in_executor(None, thread.join)


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Several reads of one state."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
