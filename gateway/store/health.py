"""Report whether the store responds, and whether it takes writes.

Both are states with one log line for each change, however many operations fail meanwhile. They
differ: a Redis that is full or has become a replica, or a file system without space, still
serves every read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gateway.oauth.models import (
    Clock,
    StoreDataError,
    StoreRejectedError,
    StoreUnavailableError,
    UnstorableValueError,
)

QUIET_S = 1.0
"""How long nothing may have failed before a recovery is logged: a store that fails every now
and then is one line, not one for each time."""

READS = frozenset({
    "get_client", "list_clients", "census", "expiring_clients", "get_token", "get_record",
    "list_records", "search_clients", "client_usage", "count_tokens", "count_records",
    "changes_since", "ping", "scan_tokens", "scan_records", "estimate_tokens", "list_tokens",
})  # fmt: skip
CERTAIN_WRITES = frozenset({"add_token", "add_client", "replace_client", "put_record"})
"""Operations that, where they succeed, have added something. Others may have had nothing to
write, or only removed something, which a full Redis permits."""

_log = logging.getLogger(__name__)


class StoreHealth:
    """The state of a store, as its operations show it."""

    def __init__(
        self,
        *,
        on_up: Callable[[bool], None] = lambda is_up: None,
        on_writable: Callable[[bool], None] = lambda is_writable: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._up = _State(
            on_up,
            "the store is unavailable: %s",
            "the store is available again",
            clock,
        )
        self._writable = _State(
            on_writable,
            "the store rejects writes: %s",
            "the store accepts writes again",
            clock,
        )

    @property
    def rejects_writes(self) -> bool:
        """Whether the last write was rejected by a store that responds."""
        return self._writable.is_bad

    def succeed(self, operation: str) -> None:
        """An operation has succeeded."""
        self._up.succeed()
        if operation in CERTAIN_WRITES:
            self._writable.succeed()

    def fail(self, operation: str, error: StoreUnavailableError) -> None:
        """An operation has failed."""
        if isinstance(error, StoreDataError | UnstorableValueError):
            self._up.succeed()
        elif isinstance(error, StoreRejectedError) and operation not in READS:
            self._up.succeed()
            self._writable.fail(error)
        else:
            self._up.fail(error)


class _State:
    """Good or bad, with a log line for each change."""

    def __init__(self, report: Callable[[bool], None], bad: str, good: str, clock: Clock) -> None:
        self._report = report
        self._bad = bad
        self._good = good
        self._clock = clock
        self.is_bad = False
        self._is_logged = False
        self._failed_at = 0.0

    def fail(self, error: Exception) -> None:
        self.is_bad = True
        self._failed_at = self._clock()
        self._report(False)
        if not self._is_logged:
            self._is_logged = True
            _log.warning(self._bad, error)

    def succeed(self) -> None:
        self.is_bad = False
        self._report(True)
        if self._is_logged and self._clock() - self._failed_at >= QUIET_S:
            self._is_logged = False
            _log.warning(self._good)
