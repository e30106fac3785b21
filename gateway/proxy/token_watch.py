"""Closes a WebSocket when its token expires or is revoked, where the route says so.

The token is looked at once a second, in the cache; where that has dropped it, it is looked up as
for a request. An unavailable store says nothing about a token: the tunnel lives on, until the
token expires.

States: watching -> looking up -> watching, or closed. `stop` ends each of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.http.deadline import do_nothing
from gateway.oauth.access import CachedToken
from gateway.oauth.errors import OAuthError
from gateway.oauth.models import Clock, StoreUnavailableError
from gateway.oauth.token_cache import TokenCache

CHECK_EVERY_S = 1.0
CLOSE_FRAME = b"\x88\x02\x11\x31"
"""Close with code 4401 (RFC 6455 section 5.5.1), which says what 401 says, by custom."""

_log = logging.getLogger(__name__)


class TokenWatch:
    """Watches the token of one tunnel."""

    def __init__(
        self,
        tokens: TokenCache,
        token: CachedToken,
        lookup: Callable[[], Awaitable[CachedToken]],
        on_end: Callable[[], None],
        *,
        wall_clock: Clock = time.time,
    ) -> None:
        """`lookup` looks the token up again; `on_end` is called once, when it is invalid."""
        self._tokens = tokens
        self._token = token
        self._lookup = lookup
        self._on_end = on_end
        self._wall_clock = wall_clock
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._schedule()

    def stop(self) -> None:
        """Stop watching: the tunnel is gone, and is let go."""
        self._on_end = do_nothing
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._timer = self._task = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(CHECK_EVERY_S, self._check)

    def _check(self) -> None:
        if self._tokens.is_current(self._token):
            self._schedule()
        else:
            self._timer = None
            self._task = asyncio.get_running_loop().create_task(self._look_up())

    async def _look_up(self) -> None:
        try:
            self._token = await self._lookup()
        except OAuthError:
            self._on_end()
            return
        except StoreUnavailableError:
            if self._token.token.expires_at <= self._wall_clock():
                self._on_end()
                return
        except Exception:
            _log.exception("the token of a WebSocket can't be looked up; it is closed")
            self._on_end()
            return
        self._task = None
        self._schedule()


class FrameBoundary:
    """Follows the frames of one direction of a WebSocket by their heads (RFC 6455 section 5.2), to
    know where another one can stand."""

    def __init__(self) -> None:
        self._head = b""
        """What has come of the head of a frame, which is not whole yet."""
        self._left = 0
        """Bytes of the payload that are to come."""

    @property
    def is_between_frames(self) -> bool:
        """Whether the last frame has come as a whole."""
        return not self._head and not self._left

    def feed(self, piece: bytes) -> None:
        """Go past the next bytes."""
        at = 0
        while at < len(piece):
            if self._left:
                step = min(self._left, len(piece) - at)
                self._left -= step
                at += step
                continue
            wanted = _head_size(self._head) - len(self._head)
            self._head += piece[at : at + wanted]
            at += wanted
            if len(self._head) >= 2 and len(self._head) == _head_size(self._head):
                self._left = _payload_size(self._head)
                self._head = b""


def _head_size(head: bytes) -> int:
    """How long the head of a frame is, as far as its first bytes say."""
    if len(head) < 2:
        return 2
    extended = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    return 2 + extended + (4 if head[1] & 0x80 else 0)


def _payload_size(head: bytes) -> int:
    size = head[1] & 0x7F
    if size == 126:
        return int.from_bytes(head[2:4])
    return int.from_bytes(head[2:10]) if size == 127 else size
