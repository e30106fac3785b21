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
from functools import partial

from gateway.background import keep_running
from gateway.http.errors import UpstreamError
from gateway.http.grpc import read_status, render_timeout
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.h1 import UpstreamConnection
from gateway.upstream.h2 import MultiplexedConnection
from gateway.upstream.h2_negotiation import Negotiation
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.stream import (
    ResponseSink,
    SmallResponse,
    StatusSink,
    UpstreamRequestHead,
    UpstreamStream,
)
from gateway.upstream.target import Target
from gateway.upstream.upstream import Upstream

_log = logging.getLogger(__name__)

SERVING = 1
_NOT_SERVING = {2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_USER_AGENT = b"User-Agent: bearer-gateway\r\n"
# A check has one deadline, over all of it.
NO_TIMEOUTS = UpstreamTimeouts(connect_s=0, response_head_s=0, idle_s=0)


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """Settings of health checks. Times are in seconds."""

    path: str
    """Of a GET; empty where a service of gRPC is asked."""
    grpc_service: str | None
    """Service that `grpc.health.v1.Health` is asked for; empty for the server as a whole."""
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
                self._tasks[endpoint] = asyncio.create_task(
                    keep_running(
                        f"health checks of upstream {self._upstream.name}",
                        partial(self._watch, endpoint),
                    )
                )

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
    connection = _Connection(endpoint.target)
    service = policy.grpc_service
    sink = StatusSink() if service is None else SmallResponse()
    try:
        async with asyncio.timeout(policy.timeout_s):
            stream = await connection.open(endpoint.address, sink)
            if service is None:
                stream.send_request(_make_request(endpoint.target, policy), ends=True)
            else:
                stream.send_request(_make_call(endpoint.target, policy), ends=False)
                stream.send_body(_frame_request(service))
                stream.end_body()
            await sink.done
    except TimeoutError:
        return "no response in time"
    except (OSError, ssl.SSLError, ssl.CertificateError) as error:
        return f"can't be reached ({type(error).__name__})"
    except UpstreamError as error:
        return error.detail
    finally:
        connection.abort()
    if service is not None:
        return _grpc_problem(sink)
    return "" if sink.status in policy.expected_statuses else f"responded {sink.status}"


class _Connection:
    """A connection for one check, of the protocol that requests have."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._http1: UpstreamConnection | None = None
        self._http2: MultiplexedConnection | None = None

    async def open(self, address: str, sink: ResponseSink) -> UpstreamStream:
        """Connect. Raises `OSError`, and `UpstreamError` where HTTP/2 was not chosen."""
        target = self._target
        if target.protocol == "http1":
            self._http1 = await target.dial(address, _make_http1)
        else:
            wire = await target.dial(address, _make_wire, is_http1=False)
            self._http1, self._http2 = wire.http1, wire.http2
        if self._http2 is not None:
            return self._http2.open(sink)
        assert self._http1 is not None
        if target.protocol == "http2":
            raise UpstreamError("upstream_protocol", "does not speak HTTP/2 (ALPN)")
        self._http1.begin(sink)
        return self._http1

    def abort(self) -> None:
        """Close it."""
        if self._http1 is not None:
            self._http1.cancel()
        if self._http2 is not None:
            self._http2.abort()


def _grpc_problem(response: SmallResponse) -> str:
    """Return what is wrong with a response of `grpc.health.v1.Health/Check`."""
    if response.status != 200:
        return f"responded {response.status}"
    if grpc_status := read_status(response.fields):
        return f"responded grpc-status {grpc_status}"
    # A HealthCheckResponse behind its length: field 1 is the status.
    message = response.start_of_body[5:]
    status = message[1] if message[:1] == b"\x08" and len(message) > 1 else 0
    return "" if status == SERVING else f"is {_NOT_SERVING.get(status, 'UNKNOWN')}"


def _make_request(target: Target, policy: HealthPolicy) -> UpstreamRequestHead:
    return UpstreamRequestHead(
        b"GET %b HTTP/1.1\r\n" % policy.path.encode("ascii"),
        policy.host.encode("ascii") or target.authority,
        _USER_AGENT,
        closes=True,
    )


def _make_call(target: Target, policy: HealthPolicy) -> UpstreamRequestHead:
    return UpstreamRequestHead(
        b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\n",
        policy.host.encode("ascii") or target.authority,
        b"%bContent-Type: application/grpc\r\nGrpc-Timeout: %b\r\n"
        % (_USER_AGENT, render_timeout(policy.timeout_s)),
        method="POST",
        is_chunked=True,
    )


def _frame_request(service: str) -> bytes:
    """A HealthCheckRequest (field 1 is the service), uncompressed, behind its length."""
    name = service.encode("ascii")
    message = b"\x0a%c%b" % (len(name), name) if name else b""
    return b"\0%b%b" % (len(message).to_bytes(4), message)


def _make_http1() -> UpstreamConnection:
    return UpstreamConnection(
        asyncio.get_running_loop(), NO_TIMEOUTS, on_lost=_ignore, on_released=_ignore
    )


def _make_http2(scheme: bytes) -> MultiplexedConnection:
    return MultiplexedConnection(
        asyncio.get_running_loop(),
        NO_TIMEOUTS,
        scheme=scheme,
        on_lost=_ignore_shared,
        on_changed=_ignore_shared,
    )


def _make_wire() -> Negotiation:
    return Negotiation(_make_http1, _make_http2)


def _ignore_shared(connection: MultiplexedConnection) -> None:
    pass


def _ignore(connection: UpstreamConnection) -> None:
    pass
