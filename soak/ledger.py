"""The ledger: what was asked, what was answered, and whether that may be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_EXAMPLES = 20


@dataclass
class Ledger:
    """Every request of a run. A request is answered once, rightly; or answered with an error
    that says so; or lost; or wrongly answered, which never may be."""

    right: Counter[str] = field(default_factory=Counter)
    """By kind of traffic."""
    errors: Counter[str] = field(default_factory=Counter)
    """Clean errors of the gateway, by status and reason."""
    lost: Counter[str] = field(default_factory=Counter)
    """Requests on an accepted connection that got no response, or half of one."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are none to the request, or let pass what may not."""
    upstream: Counter[str] = field(default_factory=Counter)
    """How often the upstream got each request that must not be sent twice."""

    @property
    def total(self) -> int:
        """All requests."""
        return sum(map(sum, (c.values() for c in (self.right, self.errors, self.lost)))) + len(
            self.wrong
        )

    def add_wrong(self, what: str) -> None:
        """Keep a response that may not be."""
        self.wrong.append(what)

    @property
    def doubled(self) -> int:
        """Requests that the upstream got more than once and may not have."""
        return sum(count > 1 for count in self.upstream.values())

    def __str__(self) -> str:
        lines = [
            f"{self.total} requests: {self.right.total()} right,"
            f" {self.errors.total()} clean errors, {self.lost.total()} lost,"
            f" {len(self.wrong)} wrong, {self.doubled} sent twice"
        ]
        for title, counts in (("right", self.right), ("errors", self.errors), ("lost", self.lost)):
            for name, count in sorted(counts.items()):
                lines.append(f"  {title:7} {name:40} {count}")
        lines += [f"  WRONG   {what}" for what in self.wrong[:MAX_EXAMPLES]]
        return "\n".join(lines)
