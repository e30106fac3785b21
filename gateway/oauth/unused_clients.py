"""Clients that registered themselves and never got a token: deleted long before others.

Each has a record, whose key begins with the time at which it is due: the first ones are due first.
A client that is used outlives its record.
"""

from __future__ import annotations

from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.models import Client, Record, RecordStore, Store, client_owner

UNUSED_CLIENT = "unused-client"
BATCH = 100


async def enter_unused(records: RecordStore, client: Client, until: float) -> None:
    """Have a client deleted at `until` (Unix time) unless it is used. Raises
    `StoreUnavailableError`."""
    key = f"{until:014.0f} {client.client_id}"
    owner = client_owner(client.client_id)
    await records.put_record(Record(UNUSED_CLIENT, key, owner, b"", None))


async def purge_unused(store: Store, before: float) -> int:
    """Delete the clients that were due before `before` (Unix time) and have not been used. Returns
    how many. Raises `StoreUnavailableError`."""
    removed = 0
    while True:
        records = await store.records.list_records(UNUSED_CLIENT, limit=BATCH)
        for record in records:
            due, _, client_id = record.key.partition(" ")
            if float(due) >= before:
                return removed
            client = await store.clients.get_client(client_id)
            # One that an operator renewed stays.
            is_unused = client is not None and metadata_of(client).unused_until is not None
            if is_unused and client is not None and client.is_expired(before):
                await store.clients.delete_client(client_id)
                removed += 1
            await store.records.delete_record(UNUSED_CLIENT, record.key)
        if len(records) < BATCH:
            return removed
