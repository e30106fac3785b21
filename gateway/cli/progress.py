"""Progress of what takes long, on standard error."""

from __future__ import annotations

import sys
import time

REDRAW_S = 0.1
BAR_WIDTH = 30


class ProgressBar:
    """Shows the progress on standard error: a bar on a terminal, else a line for each part."""

    def __init__(self, expected: dict[str, int]) -> None:
        self._expected = expected
        self._part = ""
        self._done = self._first = 0
        self._started = self._drawn = 0.0

    def show(self, part: str, done: int) -> None:
        """So many of a part are done."""
        now = time.monotonic()
        if part != self._part:
            self.finish()
            self._part, self._started, self._first = part, now, done
        self._done = done
        if sys.stderr.isatty() and now - self._drawn >= REDRAW_S:
            self._draw(now)

    def finish(self) -> None:
        """The part is done."""
        if self._part:
            self._draw(time.monotonic())
            print(file=sys.stderr)
        self._part = ""

    def _draw(self, now: float) -> None:
        self._drawn = now
        rate = (self._done - self._first) / max(now - self._started, 0.001)
        bar = ""
        if expected := self._expected.get(self._part):
            filled = min(BAR_WIDTH, BAR_WIDTH * self._done // expected)
            bar = f" [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] about {expected:,},"
        start = "\r" if sys.stderr.isatty() else ""
        line = f"{start}{self._part:<22}{bar} {self._done:,} done, {rate:,.0f}/s"
        print(f"{line:<100}" if start else line, end="", file=sys.stderr, flush=True)
