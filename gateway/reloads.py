"""Keeps the results of configuration reloads as plain data, for logs, API and console."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

KEPT = 50

Trigger = Literal["signal", "file", "api"]


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value is not what it was. Secrets are masked."""

    key: str
    """As `routes[orders].scopes`: items that have names are called by them."""
    before: str | None
    """None for what was not there; a changed file of certificates has no values at all."""
    after: str | None

    def __str__(self) -> str:
        if self.before is None and self.after is None:
            return f"{self.key}: other contents"
        if self.before is None:
            return f"{self.key}: added"
        if self.after is None:
            return f"{self.key}: removed"
        return f"{self.key}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class Reload:
    """One attempt."""

    at: float
    """Unix time, seconds."""
    trigger: Trigger
    result: Literal["ok", "error"]
    """`error`: nothing was changed; the previous configuration stays active."""
    duration_s: float
    problems: tuple[str, ...] = ()
    """What was wrong, each as `file:line: key: what is wrong`."""
    changes: tuple[Change, ...] = ()
    """What an attempt that is `ok` has changed."""
    config_hash: str = ""
    """Of the configuration that serves after it."""


class ReloadLog:
    """The last attempts, the newest first."""

    def __init__(self, kept: int = KEPT) -> None:
        self._reloads: deque[Reload] = deque(maxlen=kept)

    def add(self, reload: Reload) -> None:
        """Remember an attempt."""
        self._reloads.appendleft(reload)

    def recent(self) -> tuple[Reload, ...]:
        """Return the remembered attempts, newest first."""
        return tuple(self._reloads)
