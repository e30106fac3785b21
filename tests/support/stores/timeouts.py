"""How long gateways in this process wait for the servers of their stores."""

from __future__ import annotations

from typing import Any

import pytest
from support.deadlines import scaled

from gateway.store import link as store_link
from gateway.store.postgresql.link import PostgresLink
from gateway.store.redis.link import RedisLink


def set_default(
    monkeypatch: pytest.MonkeyPatch, kind: type[Any], parameter: str, value: object
) -> None:
    """Set what objects of a class are made with by those who do not say."""
    monkeypatch.setitem(kind.__init__.__kwdefaults__, parameter, value)


def set_store_timeouts(
    monkeypatch: pytest.MonkeyPatch, *, store_s: float, rate_limits_s: float
) -> None:
    """Set them, on an idle machine; in production, it is 1 s for the store and 0.25 s for rate
    limits."""
    for link in (RedisLink, PostgresLink):
        set_default(monkeypatch, link, "timeout_s", scaled(store_s))
    monkeypatch.setattr(store_link, "RATE_LIMIT_TIMEOUT_S", scaled(rate_limits_s))
