"""Whether the other end of a quiet HTTP/2 connection is still there.

A peer behind a NAT or a firewall may be gone without a word, and a stream that waits for it, such
as one of gRPC that is quiet for hours, would wait for ever. So a peer of whom nothing has come for
`PING_AFTER_S`, while streams are open, receives a PING (RFC 9113 section 6.7). Not more often:
servers of gRPC end connections whose clients send PINGs within five minutes (its A8, "keepalive").
"""

from __future__ import annotations

PING_AFTER_S = 300.0
PING = b"liveness"
_SLACK_S = 0.001
"""A timer may fire a little before its time."""


class Liveness:
    """Decides when to send a PING, and when a peer is lost. Times are on the clock of the loop."""

    __slots__ = ("_asked_at", "_grace_s", "received_at")

    def __init__(self, now: float, grace_s: float) -> None:
        """`grace_s` is how long an acknowledgement may take."""
        self.received_at = now
        """When something last came; to be set by its reader."""
        self._asked_at = 0.0
        self._grace_s = grace_s

    @property
    def due(self) -> float:
        """When to look again."""
        if self._is_asked:
            return self._asked_at + self._grace_s
        return self.received_at + PING_AFTER_S

    def is_lost(self, now: float) -> bool:
        """Whether a PING was not acknowledged in time, nor has anything else come."""
        return self._is_asked and now >= self.due - _SLACK_S

    def must_ask(self, now: float) -> bool:
        """Whether to send a PING now."""
        if self._is_asked or now < self.due - _SLACK_S:
            return False
        self._asked_at = now
        return True

    @property
    def _is_asked(self) -> bool:
        return self._asked_at > self.received_at
