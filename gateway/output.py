"""Writes lines to a descriptor that may have no reader: a pipe, a terminal, a full disk.

They are written by a thread, from a bounded queue. Callers never wait and never fail: what
can't be written in time is dropped, and counted.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import SimpleQueue

CLOSE_S = 5.0
"""How long a sink that takes nothing is waited for at the end."""
LOOK_S = 1.0
"""How often a file is looked at that may have been renamed or removed."""
POLL_MS = 1000
FILE_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
FILE_MODE = 0o640


class LineWriter:
    """Writes whole lines by a thread of its own."""

    def __init__(
        self,
        descriptor: int,
        *,
        name: str,
        max_pending_bytes: int,
        on_drop: Callable[[int], None] = lambda lines: None,
        on_trouble: Callable[[str], None] = lambda reason: None,
        turn: AbstractContextManager[object] | None = None,
        path: str = "",
    ) -> None:
        """`on_drop` takes the number of lines that are lost; `on_trouble` why writing fails, once
        when it begins to, and an empty text once when it succeeds again. Both are called by any
        thread.

        `turn` is entered to write whole lines: pipes and sockets cut what is written when they
        are full, and another process must not write into the gap. `path` is the file that the
        descriptor was opened as; where another one is there, or none, it is opened again.
        """
        self._descriptor = descriptor
        self._max_pending_bytes = max_pending_bytes
        self.on_drop = on_drop
        self._on_trouble = on_trouble
        self._turn = turn or contextlib.nullcontext()
        self._path = path
        self._looked_at = time.monotonic()
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._queued_bytes = 0
        self._written_bytes = 0
        self._is_cut = False
        self._is_failing = False
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def write(self, lines: bytes) -> None:
        """Take whole lines, or drop them where the sink has fallen too far behind."""
        if self._queued_bytes - self._written_bytes > self._max_pending_bytes:
            self.on_drop(lines.count(b"\n"))
        else:
            self._queued_bytes += len(lines)
            self._queue.put(lines)

    def close(self, *, timeout_s: float = CLOSE_S) -> None:
        """Write what was taken; a sink that takes nothing for so long is given up."""
        self._queue.put(None)
        self._is_closing = True
        self._thread.join(timeout=timeout_s)

    def _run(self) -> None:
        while (lines := self._queue.get()) is not None:
            self._follow_path()
            try:
                with self._turn:
                    self._write(lines)
            except OSError as error:
                self._report(error.strerror or type(error).__name__)
            else:
                self._report("")
            self._written_bytes += len(lines)

    def _write(self, lines: bytes) -> None:
        """Raises `OSError` where the rest of the lines is lost."""
        view = memoryview(lines)
        try:
            while self._is_cut:  # what is left of that line must not run into the next one
                self._write_some(memoryview(b"\n"))
            while view:
                view = view[self._write_some(view) :]
        except OSError:
            self.on_drop(bytes(view).count(b"\n"))
            raise

    def _write_some(self, view: memoryview) -> int:
        try:
            written = os.write(self._descriptor, view)
        except BlockingIOError:
            self._wait_for_room()
            return 0
        if written:
            self._is_cut = view[written - 1] != ord("\n")
        return written

    def _wait_for_room(self) -> None:
        """Raises `TimeoutError` at the end, where no process reads any more."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        started = time.monotonic()
        while not poll.poll(POLL_MS):
            if self._is_closing and time.monotonic() - started > CLOSE_S:
                raise TimeoutError("it has no reader")

    def _report(self, reason: str) -> None:
        if bool(reason) is not self._is_failing:
            self._is_failing = bool(reason)
            self._on_trouble(reason)

    def _follow_path(self) -> None:
        """Open the file again where log rotation has put it elsewhere, or removed it."""
        if not self._path or time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                return
        except FileNotFoundError:
            pass
        except OSError:
            return
        try:
            opened = os.open(self._path, FILE_FLAGS, FILE_MODE)
        except OSError:
            return  # go on where we were; the next look may succeed
        os.close(self._descriptor)
        self._descriptor, self._is_cut = opened, False
