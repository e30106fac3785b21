"""How much clients use the gateway: noted in memory, and written to the store periodically.

Nothing here is done per request. A token that is in use is read from the store again
whenever its entry in the cache ends, and each such read is noted: the last use is known
to within `cache.ttl`.
"""

from __future__ import annotations

import time
from itertools import islice

from gateway.oauth.models import AccessToken, ClientUsage, Clock, UsageStore

MAX_CLIENTS = 20_000
"""Clients that are noted between two flushes; what comes beyond is not counted."""
BATCH = 200


class UsageTracker:
    """Collects usage that is not in the store yet."""

    def __init__(self, store: UsageStore, *, wall_clock: Clock = time.time) -> None:
        self._store = store
        self._wall_clock = wall_clock
        self._noted: dict[str, ClientUsage] = {}

    def issued(self, client_id: str) -> None:
        """A client got a token."""
        self._note(client_id, None, 1)

    def read(self, token: AccessToken) -> None:
        """Note that a token was presented and read."""
        now = self._wall_clock()
        if token.expires_at > now:
            self._note(token.client_id, now, 0)

    def _note(self, client_id: str, used_at: float | None, issued: int) -> None:
        known = self._noted.get(client_id)
        if known is None:
            if len(self._noted) >= MAX_CLIENTS:
                return
            known = ClientUsage(client_id)
        self._noted[client_id] = ClientUsage(
            client_id, used_at or known.last_used, known.tokens_issued + issued
        )

    async def flush(self) -> None:
        """Write to the store. Raises `StoreUnavailableError`; what was not written is kept."""
        while self._noted:
            ids = list(islice(self._noted, BATCH))
            batch = [self._noted.pop(client_id) for client_id in ids]
            try:
                await self._store.record_usage(batch)
            except BaseException:
                for usage in batch:
                    self._note(usage.client_id, usage.last_used, usage.tokens_issued)
                raise
