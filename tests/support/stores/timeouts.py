"""How long gateways in this process wait for the servers of their stores."""

from __future__ import annotations

import pytest
from support.deadlines import scaled

from gateway.store import link as store_link
from gateway.store.postgresql.link import PostgresLink
from gateway.store.redis.link import RedisLink


def set_store_timeouts(
    monkeypatch: pytest.MonkeyPatch, *, store_s: float, rate_limits_s: float
) -> None:
    """Set them, on an idle machine; in production, it is 1 s for the store and 0.25 s for rate
    limits."""
    for link in (RedisLink, PostgresLink):
        defaults = link.__init__.__kwdefaults__
        assert defaults is not None
        monkeypatch.setitem(defaults, "timeout_s", scaled(store_s))
    monkeypatch.setattr(store_link, "RATE_LIMIT_TIMEOUT_S", scaled(rate_limits_s))
