"""The store of a gateway that has none: it knows no client and no token, and keeps nothing.

What the gateway writes down beside requests (the audit log, usage) is dropped; all else that would
have to be kept is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gateway.oauth.models import (
    AccessToken,
    Change,
    Client,
    ClientCensus,
    ClientUsage,
    Clock,
    Purged,
    Record,
    StoreRejectedError,
)
from gateway.rate_limit import RateLimit

DROPPED = frozenset({"admin-audit", "probe", "sign-in-failures"})
"""Kinds of records that nothing depends on."""


def _reject() -> StoreRejectedError:
    return StoreRejectedError("store is none: nothing can be kept")


class NoStore:
    """Implements `gateway.oauth.models.Store`."""

    def __init__(self, wall_clock: Clock) -> None:
        self.clients = _NoClients()
        self.tokens = _NoTokens()
        self.records = _NoRecords(wall_clock)
        self.usage = _NoUsage()

    async def purge(self, *, tokens_before: float, clients_before: float) -> Purged:
        return Purged(0, 0)

    async def changes_since(self, cursor: int | None) -> tuple[int, Sequence[Change] | None]:
        return 0, ()

    async def watch_changes(
        self, *, on_change: Callable[[], None], on_gap: Callable[[], None]
    ) -> None:
        return

    async def ping(self) -> None:
        return

    @property
    def rejects_writes(self) -> bool:
        return False

    async def find_hazards(self) -> Sequence[str]:
        return ()

    async def close(self) -> None:
        return


class _NoClients:
    async def get_client(self, client_id: str) -> Client | None:
        return None

    async def add_client(self, client: Client) -> None:
        raise _reject()

    async def replace_client(self, client: Client) -> int:
        raise _reject()

    async def delete_client(self, client_id: str) -> int | None:
        return None

    async def list_clients(self, *, after: str = "", limit: int = 100) -> Sequence[Client]:
        return ()

    async def update_client(self, client: Client, *, generation: int) -> Client | None:
        return None

    async def set_client_expiry(self, client_id: str, expires_at: float | None) -> Client | None:
        return None

    async def set_client_secret(self, client_id: str, secret_hash: str) -> Client | None:
        return None

    async def set_client_rate_limit(
        self, client_id: str, rate_limit: RateLimit | None
    ) -> Client | None:
        return None

    async def census(self, *, now: float, expiring_before: float) -> ClientCensus:
        return ClientCensus(0, 0, 0)

    async def expiring_clients(
        self, *, now: float, before: float, limit: int = 20
    ) -> Sequence[Client]:
        return ()


class _NoTokens:
    async def get_token(self, digest: bytes) -> AccessToken | None:
        return None

    async def add_token(self, token: AccessToken, *, generation: int) -> None:
        raise _reject()

    async def revoke_token(self, digest: bytes) -> AccessToken | None:
        return None

    async def revoke_client_tokens(self, client_id: str) -> int:
        return 0


class _NoRecords:
    def __init__(self, wall_clock: Clock) -> None:
        self._wall_clock = wall_clock

    async def now(self) -> float:
        return self._wall_clock()

    async def add_record(self, record: Record) -> bool:
        if record.kind not in DROPPED:
            raise _reject()
        return True

    async def get_record(self, kind: str, key: str) -> Record | None:
        return None

    async def take_record(self, kind: str, key: str) -> Record | None:
        return None

    async def put_record(self, record: Record) -> Record:
        if record.kind not in DROPPED:
            raise _reject()
        return record

    async def swap_record(self, old: Record, new: Record, *, change: Change | None = None) -> bool:
        return False

    async def delete_record(self, kind: str, key: str, *, change: Change | None = None) -> bool:
        return False

    async def delete_owned_records(self, kind: str, owner: str) -> int:
        return 0

    async def list_records(
        self, kind: str, *, after: str = "", limit: int = 100, owner: str | None = None
    ) -> Sequence[Record]:
        return ()


class _NoUsage:
    async def search_clients(
        self, text: str, *, after: str = "", limit: int = 100
    ) -> Sequence[Client]:
        return ()

    async def record_usage(self, usages: Sequence[ClientUsage]) -> None:
        return

    async def client_usage(self, client_ids: Sequence[str]) -> Mapping[str, ClientUsage]:
        return {}

    async def count_tokens(self, client_id: str) -> int:
        return 0

    async def list_tokens(
        self, client_id: str, *, after: AccessToken | None = None, limit: int = 100
    ) -> Sequence[AccessToken]:
        return ()
