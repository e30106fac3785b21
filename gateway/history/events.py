"""Keeps recent events out of the ordinary: rejections, failed logins, reloads, store outages."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from gateway.history.sampling import Refusal, Slice

MAX_EVENTS = 500
MERGE_S = 60.0
"""Equal events within this time are merged into one with a count."""
MAX_TEXT = 300

Kind = Literal["refusal", "login", "reload", "store"]
LOGIN_REASONS = frozenset({"invalid_client", "too_many_attempts", "sign_in_failed"})


@dataclass(slots=True)
class Event:
    """Something that happened, once or several times in a row."""

    kind: Kind
    title: str
    at: float
    """When it happened first, Unix time."""
    last_at: float
    count: int = 1
    is_bad: bool = True
    status: int = 0
    route: str = ""
    who: str = ""
    """The client or user of the last time, if known."""
    address: str = ""
    """Where the last one came from, if known."""
    detail: str = field(default="", repr=False)
    """Several lines: the differences of a configuration."""


class Events:
    """The last `MAX_EVENTS` events."""

    def __init__(self, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._events: OrderedDict[int, Event] = OrderedDict()
        self._open: dict[tuple[str, ...], int] = {}
        self._count = 0
        self._down: set[int] = set()
        """The processes that the store does not respond."""
        self._rejected: set[int] = set()
        """The processes whose writes the store rejects."""

    def __len__(self) -> int:
        return len(self._events)

    @property
    def changes(self) -> int:
        """Counts up with each event, merged ones excepted."""
        return self._count

    def newest(self, kind: Kind | None = None) -> Iterator[Event]:
        """The events, of one kind or all, newest first."""
        found = [event for event in self._events.values() if kind in {None, event.kind}]
        return iter(sorted(found, key=lambda event: event.last_at, reverse=True))

    def receive(self, process: int, part: Slice) -> None:
        """Add what a process counted."""
        for refusal in part.refusals:
            self.refused(refusal)
        self._note_store(process, is_up=part.is_store_up, is_writable=part.is_store_writable)

    def forget(self, process: int) -> None:
        """A process ended."""
        self._note_store(process, is_up=True, is_writable=True)

    def _note_store(self, process: int, *, is_up: bool, is_writable: bool) -> None:
        for affected, is_good, bad_title, good_title in (
            (self._down, is_up, "The store does not respond", "The store responds again"),
            (
                self._rejected,
                is_writable,
                "The store rejects writes",
                "The store accepts writes again",
            ),
        ):
            was_good = not affected
            if is_good:
                affected.discard(process)
            else:
                affected.add(process)
            if was_good != (not affected):
                self.add("store", good_title if not affected else bad_title, is_bad=bool(affected))

    def refused(self, refusal: Refusal) -> None:
        """The gateway refused requests for one reason."""
        is_login = refusal.route == "_provider" and refusal.reason in LOGIN_REASONS
        self.add(
            "login" if is_login else "refusal",
            refusal.reason,
            count=refusal.count,
            status=refusal.status,
            route=refusal.route,
            who=refusal.client_id,
            address=refusal.address,
        )

    def add(
        self,
        kind: Kind,
        title: str,
        *,
        count: int = 1,
        is_bad: bool = True,
        status: int = 0,
        route: str = "",
        who: str = "",
        address: str = "",
        detail: str = "",
    ) -> None:
        """Something happened."""
        now = self._wall_clock()
        merge = (kind, title, route, str(status), who if kind == "login" else "", detail)
        known = self._events.get(self._open.get(merge, -1))
        if known is not None and kind != "store" and now - known.last_at < MERGE_S:
            known.count += count
            known.last_at = now
            known.who, known.address = who[:MAX_TEXT], address[:MAX_TEXT]
            return
        self._count += 1
        self._events[self._count] = Event(
            kind, title[:MAX_TEXT], now, now, count, is_bad, status, route,
            who[:MAX_TEXT], address[:MAX_TEXT], detail,
        )  # fmt: skip
        self._open[merge] = self._count
        while len(self._events) > MAX_EVENTS:
            self._events.popitem(last=False)
        if len(self._open) > 2 * MAX_EVENTS:
            self._open = {key: at for key, at in self._open.items() if at in self._events}
