"""Operations of a store, measured: what all parts of each kind of store share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypedDict, TypeVar, Unpack

from gateway.oauth.models import Change, Clock, StoreUnavailableError
from gateway.store.health import StoreHealth

Result = TypeVar("Result")


class Reports(TypedDict, total=False):
    """Receivers of reports, see `gateway.store.open_store`; and the clock."""

    observe: Callable[[str, float], None]
    health: StoreHealth | None
    on_change: Callable[[Change], None]
    wall_clock: Clock


def has_changed(result: object) -> bool:
    """Whether an operation found what it was to change, by its result."""
    return result is not None and result is not False


class StoreOperations:
    """Measures operations, and reports their outcomes and the changes that they make."""

    def __init__(self, **reports: Unpack[Reports]) -> None:
        self._observe: Callable[[str, float], None] = reports.get(
            "observe", lambda operation, seconds: None
        )
        self.health = reports.get("health") or StoreHealth()
        self.on_change: Callable[[Change], None] = reports.get("on_change", lambda change: None)
        self.wall_clock: Clock = reports.get("wall_clock", time.time)

    async def measure(self, operation: str, running: Awaitable[Result]) -> Result:
        """Wait for an operation. Raises what it raises."""
        started = time.perf_counter()
        try:
            result = await running
        except StoreUnavailableError as error:
            self.health.fail(operation, error)
            raise
        finally:
            self._observe(operation, time.perf_counter() - started)
        self.health.succeed(operation)
        return result
