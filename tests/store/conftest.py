"""Each kind of store, for the suites that hold for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from provider import Clock

from gateway.oauth.models import Store
from gateway.store.sqlite import SqliteStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[Store]:
    """Each kind of store, empty."""
    opened = await SqliteStore.open(tmp_path / "store.db", wall_clock=clock)
    yield opened
    await opened.close()
