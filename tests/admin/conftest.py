"""Fixtures of the tests of the admin listener."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.clients.console_visitor import Visitor, signed_in
from support.running_gateway import RunningGateway


@pytest.fixture
async def alice(gateway: RunningGateway, tmp_path: Path) -> Visitor:
    """An operator who has signed in."""
    return await signed_in(gateway, tmp_path)
