"""A gateway of the test's own, for applications that embed it."""

from __future__ import annotations

import pytest
from support.embedded_config import config

from gateway.testing import TemporaryGateway


@pytest.fixture
def embedded() -> TemporaryGateway:
    """One that is not started yet."""
    return TemporaryGateway(config())
