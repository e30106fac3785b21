"""Background tasks that do not end in silence.

A task that is not awaited hides its exception. Each that must run for the life of its process
is kept by `keep_running`: whatever it fails of is logged once, and it is tried again, at growing
intervals.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
from collections.abc import Awaitable, Callable

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 15.0
STEADY_S = 60.0
"""What ran for so long is tried again as if it had never failed."""

_log = logging.getLogger(__name__)

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors by which the process or the system has no descriptor or memory left for something."""


class RetryPauses:
    """Pauses between attempts that fail, and one log line for each kind of failure in a row."""

    def __init__(
        self,
        name: str,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._name = name
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._failures = 0
        self._seen: set[tuple[type[BaseException], str]] = set()

    def fail(self, error: Exception) -> float:
        """Log a failure, unless one like it was logged since `succeed`. Returns the pause in
        seconds before the next attempt: random, so that processes do not try in step."""
        kind = (type(error), str(error))
        if kind not in self._seen and len(self._seen) < 10:
            self._seen.add(kind)
            is_want = isinstance(error, OSError) and error.errno in EXHAUSTED
            _log.error(
                "background task failed: %s%s; continuing",
                self._name,
                f" ({error})" if is_want else "",
                exc_info=None if is_want else error,
            )
        self._failures += 1
        pause_s = self._first_pause_s * 2.0 ** min(self._failures - 1, 30)
        return min(pause_s, self._longest_pause_s) * (0.5 + random.random() / 2)  # noqa: S311

    def succeed(self) -> None:
        """Log the end of a series of failures."""
        if self._failures:
            _log.warning("background task succeeds again: %s", self._name)
        self._failures = 0
        self._seen.clear()


async def keep_running(
    name: str,
    work: Callable[[], Awaitable[None]],
    *,
    longest_pause_s: float = LONGEST_PAUSE_S,
) -> None:
    """Run `work` until it returns or is cancelled; after an exception, log it and run it again."""
    retries = RetryPauses(name, longest_pause_s=longest_pause_s)
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await work()
        except Exception as error:
            if loop.time() - started >= STEADY_S:
                retries.succeed()
            await asyncio.sleep(retries.fail(error))
        else:
            return
