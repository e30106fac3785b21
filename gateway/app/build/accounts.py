"""The admin accounts of a configuration, for the admin listener, or for one command."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.admin.accounts import Accounts, open_accounts
from gateway.config import Config
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.models import RecordStore
from gateway.store import open_store


def accounts_in(config: Config, store: RecordStore, hasher: SecretHasher) -> Accounts:
    """The accounts in an open store."""
    admin = config.admin
    return open_accounts(
        store,
        hasher,
        time.time,
        idle_s=admin.session_idle,
        session_s=admin.session_ttl,
        retention_s=admin.audit_retention,
    )


@asynccontextmanager
async def open_store_accounts(
    config: Config, *, must_exist: bool = False
) -> AsyncIterator[Accounts]:
    """The accounts in the store of `config`, beside a running gateway.

    Raises `StoreError` where the store can't be opened, or is a file that is not there and
    `must_exist`.
    """
    store = await open_store(config.store, must_exist=must_exist)
    hasher = SecretHasher()
    try:
        yield accounts_in(config, store.records, hasher)
    finally:
        await hasher.close()
        await store.close()
