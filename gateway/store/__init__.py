"""The persistent stores behind the protocols of `gateway.oauth.models`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.oauth.models import Change, Store, StoreError
from gateway.store.sqlite import SqliteStore

__all__ = ["open_store"]


async def open_store(
    url: str,
    *,
    observe: Callable[[str, float], None] = lambda operation, seconds: None,
    on_outcome: Callable[[bool], None] = lambda is_up: None,
    on_change: Callable[[Change], None] = lambda change: None,
) -> Store:
    """Open the store at a URL: `sqlite:///relative/path` or `sqlite:////absolute/path`.

    `observe` is told of each operation and its seconds, `on_outcome` whether the store
    answered it, and `on_change` what was revoked through this very store, before the one
    who asked for it hears that it was done. Raises `StoreError` where the store can't be opened.
    """
    scheme, separator, path = url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise StoreError(f"the store must be sqlite:///PATH, not {scheme}:")
    return await SqliteStore.open(
        Path(path), observe=observe, on_outcome=on_outcome, on_change=on_change
    )
