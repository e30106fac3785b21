"""Keeps the ids of what is good once, such as an assertion, until it ends: in the store that all
processes share, so that a copy taken from a log or a wire opens nothing.
"""

from __future__ import annotations

import hashlib

from gateway.oauth.models import Record, RecordStore


async def use_once(
    records: RecordStore, kind: str, issuer: str, text_id: str, *, until: float, owner: str = ""
) -> bool:
    """Use what an issuer gave an id. Returns whether that was the first time.

    `until` is when it ends (Unix time, seconds), with the tolerance for clocks. Raises
    `StoreUnavailableError`.
    """
    key = hashlib.sha256(f"{issuer}\0{text_id}".encode()).hexdigest()
    return await records.add_record(Record(kind, key, owner, b"", until))
