"""Writes into the audit log which workloads get tokens: pod and node, repository and run."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from cachetools import TTLCache

from gateway.oauth.models import Clock, RecordStore
from gateway.oauth.workloads.rules import Workload

REPEATED_AFTER_S = 86400.0
"""A workload that gets tokens again and again is one entry a day of each process."""
MAX_WORKLOADS = 10_000

Note = Callable[[str, str, str, str, str], Awaitable[None]]
"""Writes an entry: actor, address, action, target, detail."""


def audit_note(records: RecordStore, *, retention_s: float) -> Note:
    """Return what writes into the audit log of the store."""

    async def note(actor: str, address: str, action: str, target: str, detail: str) -> None:
        # Applications that embed the provider load the admin package with the first workload only.
        from gateway.admin.accounts.audit import AuditLog

        audit = AuditLog(records, retention_s=retention_s)
        await audit.note(actor, address, action, target, detail)

    return note


class WorkloadAudit:
    """Keeps the audit log of workloads."""

    def __init__(self, note: Note, *, clock: Clock = time.monotonic) -> None:
        self._note = note
        self._noted: TTLCache[object, bool] = TTLCache(MAX_WORKLOADS, REPEATED_AFTER_S, clock)

    async def issued(self, workload: Workload, client_id: str, source: str) -> None:
        """A token for a client was issued to a workload at the address `source`."""
        known_by = (workload.issuer, workload.subject, client_id, *workload.details.items())
        if known_by in self._noted:
            return
        self._noted[known_by] = True
        details = " ".join(f"{name}={value}" for name, value in workload.details.items())
        actor = f"workload {workload.issuer}:{workload.subject}"
        await self._note(actor, source, "token.issue", client_id, details)
