"""Which clock is for what, and what is tolerated between two of them.

- `time.monotonic`, called `clock` in constructors: durations within one process (caches, deadlines,
  retries). A jump of the wall clock does not touch it; no other process can read it.
- `time.time`, called `wall_clock`: times that leave the process, in tokens and in the store. It may
  jump, and that of another process, of a client or of another issuer is never exactly ours.

So a time that another process wrote is compared by the functions below. Only what ends by itself
and without harm a little early or late, such as a session, is compared as it stands.
"""

from __future__ import annotations

CLOCK_SKEW_S = 30.0
"""How far the clock of a client, another issuer or another replica may be from ours, either way."""


def has_come(moment: float | None, now: float, skew_s: float = CLOCK_SKEW_S) -> bool:
    """Return whether `moment`, which another process wrote, is past or present; None always is."""
    return moment is None or moment <= now + skew_s


def is_over(end: float, now: float, skew_s: float = CLOCK_SKEW_S) -> bool:
    """Return whether `end`, which another process wrote, is past for certain."""
    return now >= end + skew_s


def is_within(moment: float, now: float, duration_s: float, skew_s: float = CLOCK_SKEW_S) -> bool:
    """Return whether less than `duration_s` went by since `moment`, which another process wrote.

    A moment that is slightly in the future is now: the clock that wrote it is ahead of ours.
    """
    return -skew_s <= now - moment < duration_s
