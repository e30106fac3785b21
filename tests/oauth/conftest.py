"""Fixtures of the provider's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.provider import Provider, open_provider


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    """A provider over a real store."""
    async with open_provider(tmp_path) as opened:
        yield opened


@pytest.fixture
async def shop(provider: Provider) -> str:
    """A client whose secret is `secret`."""
    await provider.server.register_client(client_id="shop", client_secret="secret")
    return "shop"
