"""Calls of the server behind a store: each completes in time, or fails.

Every call goes through a circuit breaker, and has the deadline that the store's own kind of
connection gives it. Nothing is tried twice here: a write whose response was lost may have happened.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from gateway.oauth.models import StoreError, StoreUnavailableError
from gateway.store.breaker import StoreBreaker

Result = TypeVar("Result")
Connection = Any
"""What the client library calls one: its classes share their methods, but no type."""

TIMEOUT_S = 1.0
RATE_LIMIT_TIMEOUT_S = 0.25
"""A request waits so long for its rate limit at most: that is not worth more."""
CLOSED = "the store is closed"

_log = logging.getLogger(__name__)


class StoreLink(ABC):
    """The connections to a server."""

    server = ""
    """What it is called in the log."""

    def __init__(
        self, files: tuple[str | None, ...], timeout_s: float, breaker: StoreBreaker | None
    ) -> None:
        """Raises `StoreError` for `files` (of TLS) that can't be read."""
        for name in files:
            if name is not None:
                try:
                    Path(name).read_bytes()
                except OSError as error:
                    raise StoreError(f"{name}: {error.strerror}") from None
        self.timeout_s = timeout_s
        self.is_closed = False
        self._breaker = breaker or StoreBreaker()
        self._noted: set[type[Exception]] = set()

    @property
    def is_resting(self) -> bool:
        """Whether a call would be refused by the breaker."""
        return self._breaker.is_resting

    async def run(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Do `work` on a connection. Raises what `work` raises as a `StoreError`, and
        `StoreUnavailableError`."""
        if self.is_closed:
            raise StoreUnavailableError(CLOSED)
        self._breaker.enter()
        try:
            result = await self._call(work)
        except StoreError:
            # The server responded; what it said is the matter.
            self._breaker.succeed()
            raise
        except Exception as error:
            failure = self._explain(error)
            if failure is None:
                self._breaker.withdraw()
                raise
            if self._is_response(error):
                self._breaker.succeed()
            else:
                self._breaker.fail()
            if not self._is_foreseen(error) and type(error) not in self._noted:
                self._noted.add(type(error))
                _log.error("the %s client failed unexpectedly", self.server, exc_info=error)
            await self._give_up_connections(error)
            raise failure from None
        except BaseException:
            self._breaker.withdraw()
            raise
        self._breaker.succeed()
        return result

    @abstractmethod
    async def _call(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Do `work` before the deadline."""

    @abstractmethod
    def _explain(self, error: Exception) -> StoreUnavailableError | None:
        """Translate an exception of the client library; None where it is none of its."""

    @abstractmethod
    def _is_response(self, error: Exception) -> bool:
        """Whether the server responded, if only with an error."""

    @abstractmethod
    def _is_foreseen(self, error: Exception) -> bool:
        """Whether this is an ordinary outage, rather than a defect worth a traceback."""

    @abstractmethod
    async def _give_up_connections(self, error: Exception) -> None:
        """Close those that are of no use after this error."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection. Raises nothing: what can't be closed is lost already."""
