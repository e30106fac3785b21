"""Active health checks: each endpoint is asked regularly whether it is well.

An endpoint counts as healthy until so many checks in a row failed, and then as unhealthy
until so many succeeded; a check succeeds when the response has an expected status in time.
Each check is a connection of its own, so that it also shows whether new ones are accepted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from gateway.http.errors import UpstreamError
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.h1 import UpstreamConnection
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import StatusSink, UpstreamRequestHead
from gateway.upstream.upstream import Upstream

_log = logging.getLogger(__name__)

# A check has one deadline, over all of it.
NO_TIMEOUTS = UpstreamTimeouts(connect_s=0, response_head_s=0, idle_s=0)


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """Settings of health checks. Times are in seconds."""

    path: str
    host: str
    """The Host that is asked for; empty for the target's own."""
    interval_s: float
    timeout_s: float
    unhealthy_threshold: int
    healthy_threshold: int
    expected_statuses: frozenset[int]


class HealthChecks:
    """Checks the endpoints of one upstream, each at its own pace."""

    def __init__(
        self,
        upstream: Upstream,
        policy: HealthPolicy,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._upstream = upstream
        self._policy = policy
        self._chance = chance
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}
        self._is_started = False

    def start(self) -> None:
        """Begin to check."""
        self._is_started = True
        self.sync()

    def sync(self) -> None:
        """Check the endpoints that there are now, and those that are gone no more."""
        if not self._is_started:
            return
        current = set(self._upstream.endpoints)
        for gone in self._tasks.keys() - current:
            self._tasks.pop(gone).cancel()
        for endpoint in self._upstream.endpoints:
            if endpoint not in self._tasks:
                self._tasks[endpoint] = asyncio.create_task(self._watch(endpoint))

    async def stop(self) -> None:
        """Check no more."""
        self._is_started = False
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, endpoint: Endpoint) -> None:
        policy = self._policy
        in_a_row = 0
        while True:
            problem = await check(endpoint, policy)
            is_well = not problem
            self._upstream.counts.health_checks["ok" if is_well else "failed"] += 1
            if is_well is endpoint.is_healthy:
                in_a_row = 0
            else:
                in_a_row += 1
                threshold = policy.healthy_threshold if is_well else policy.unhealthy_threshold
                if in_a_row >= threshold:
                    in_a_row = 0
                    self._settle(endpoint, problem)
            # Never all at the same moment, and never exactly in step with something else.
            await asyncio.sleep(policy.interval_s * (0.9 + 0.2 * self._chance()))

    def _settle(self, endpoint: Endpoint, problem: str) -> None:
        endpoint.is_healthy = not problem
        name, where = self._upstream.name, endpoint.address or endpoint.target.url
        if problem:
            _log.warning("upstream %s: %s is unhealthy: %s", name, where, problem)
        else:
            _log.info("upstream %s: %s is healthy again", name, where)
        self._upstream.refresh()


async def check(endpoint: Endpoint, policy: HealthPolicy) -> str:
    """Ask once; returns what is wrong, which is nothing for a healthy endpoint."""
    loop = asyncio.get_running_loop()
    target = endpoint.target
    response = StatusSink()
    request = UpstreamRequestHead(
        b"GET %b HTTP/1.1\r\n" % policy.path.encode("ascii"),
        policy.host.encode("ascii") or target.authority,
        b"User-Agent: bearer-gateway\r\n",
        closes=True,
    )
    connection: UpstreamConnection | None = None

    def make_connection() -> UpstreamConnection:
        return UpstreamConnection(loop, NO_TIMEOUTS, on_lost=_ignore, on_released=_ignore)

    try:
        async with asyncio.timeout(policy.timeout_s):
            connection = await target.dial(endpoint.address, make_connection)
            connection.begin(response)
            connection.send_request(request, ends=True)
            status = await response.status
    except TimeoutError:
        return "no response in time"
    except (OSError, ssl.SSLError, ssl.CertificateError) as error:
        return f"can't be reached ({type(error).__name__})"
    except UpstreamError as error:
        return error.detail
    finally:
        if connection is not None:
            connection.cancel()
    return "" if status in policy.expected_statuses else f"responded {status}"


def _ignore(connection: UpstreamConnection) -> None:
    pass
