"""Upstreams, their targets, and the choice between them.

Fourth step of the request path: a target is chosen, and a connection to it taken from
those that idle (without waiting) or dialled. A target that can't be reached is passed
over for a while, unless it is the last one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import sample
from typing import Literal
from urllib.parse import urlsplit

from prometheus_client.core import GaugeMetricFamily, Metric

from gateway.metrics import Histogram
from gateway.proxy.connection import UpstreamConnection
from gateway.proxy.problems import ConnectError, ConnectTimeoutError

Balance = Literal["round_robin", "least_requests", "random_two", "consistent_hash"]

EJECTION_S = 5.0
"""How long a target that could not be reached is passed over."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines towards one upstream, in seconds; 0 is none."""

    connect_s: float = 3.0
    response_head_s: float = 30.0
    idle_s: float = 60.0
    """The longest silence within an exchange."""
    keepalive_s: float = 60.0
    """How long an unused connection is kept."""
    tunnel_s: float = 3600.0
    """The longest silence within a WebSocket."""


class Target:
    """One address of an upstream, with its connections."""

    def __init__(
        self,
        url: str,
        timeouts: Timeouts,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.url = url
        self.timeouts = timeouts
        self._unix_path = parts.path if parts.scheme == "unix" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = tls if parts.scheme == "https" else None
        self._server_name = (server_name or self._host) if self._tls else None
        self.authority = parts.netloc.encode("ascii") or b"localhost"
        """The Host of requests that came without one (HTTP/1.0)."""
        self._connections: set[UpstreamConnection] = set()
        self._idle: list[UpstreamConnection] = []
        self._ejected_until = 0.0
        self._is_retired = False

    def __repr__(self) -> str:
        return f"<Target {self.url}, {self.active} active, {self.idle} idle>"

    @property
    def idle(self) -> int:
        """Connections that wait for an exchange."""
        return len(self._idle)

    @property
    def active(self) -> int:
        """Connections with an exchange in progress."""
        return len(self._connections) - len(self._idle)

    def is_up(self) -> bool:
        """Whether the last attempt to reach it succeeded, or failed long enough ago."""
        return not self._ejected_until or _now() >= self._ejected_until

    def take_idle(self) -> UpstreamConnection | None:
        """The connection used last, so that those not needed can end. Never waits."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection. Raises `ConnectError` and `ConnectTimeoutError`."""
        try:
            async with asyncio.timeout(self.timeouts.connect_s or None):
                connection = await self._dial()
        except TimeoutError:
            self._eject()
            raise ConnectTimeoutError(
                "upstream_connect_timeout", "Connecting to the upstream took too long."
            ) from None
        except (OSError, ssl.SSLError, ssl.CertificateError) as error:
            self._eject()
            raise ConnectError(
                "upstream_connect_failed", "The upstream can't be reached."
            ) from error
        self._ejected_until = 0.0
        self._connections.add(connection)
        return connection

    async def _dial(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()

        def make_connection() -> UpstreamConnection:
            return UpstreamConnection(
                loop, idle_timeout_s=self.timeouts.idle_s, on_lost=self._forget
            )

        if self._unix_path is not None:
            _, connection = await loop.create_unix_connection(make_connection, self._unix_path)
        else:
            _, connection = await loop.create_connection(
                make_connection,
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=self._server_name,
            )
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back whose exchange ended well."""
        if self._is_retired:
            connection.abort()
            return
        connection.park(self.timeouts.keepalive_s)
        self._idle.append(connection)

    def _eject(self) -> None:
        self._ejected_until = _now() + EJECTION_S

    def _forget(self, connection: UpstreamConnection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def retire(self) -> None:
        """Keep no connection but those with an exchange in progress, which end with it."""
        self._is_retired = True
        for connection in tuple(self._idle):
            connection.abort()

    def close(self) -> None:
        """Close every connection, those with an exchange in progress too."""
        for connection in tuple(self._connections):
            connection.abort()


class Upstream:
    """A named group of targets that serve the same thing."""

    def __init__(
        self,
        name: str,
        targets: Sequence[Target],
        *,
        durations: Histogram,
        balance: Balance = "round_robin",
    ) -> None:
        self.name = name
        self.targets = tuple(targets)
        self.durations = durations
        self._choose = _chooser(balance)

    def __repr__(self) -> str:
        return f"<Upstream {self.name}, {len(self.targets)} targets>"

    def choose(self, key: str) -> Target:
        """The target for a request. `key` is what `consistent_hash` keeps together."""
        targets = self.targets
        if len(targets) == 1:
            return targets[0]
        # Where all are down, trying one is better than refusing them all.
        return self._choose([target for target in targets if target.is_up()] or targets, key)

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is in progress."""
        return any(target.active for target in self.targets)

    def retire(self) -> None:
        """It gets no more requests: let it end with those that it has."""
        for target in self.targets:
            target.retire()

    def close(self) -> None:
        """Close every connection."""
        for target in self.targets:
            target.close()


Chooser = Callable[[Sequence[Target], str], Target]


def _chooser(balance: Balance) -> Chooser:
    match balance:
        case "round_robin":
            return _RoundRobin()
        case "least_requests":
            return lambda targets, key: min(targets, key=lambda target: target.active)
        case "random_two":
            return _choose_of_random_two
        case "consistent_hash":
            return _choose_by_hash


class _RoundRobin:
    def __init__(self) -> None:
        self._turn = -1

    def __call__(self, targets: Sequence[Target], key: str) -> Target:
        self._turn += 1
        return targets[self._turn % len(targets)]


def _choose_of_random_two(targets: Sequence[Target], key: str) -> Target:
    # Two choices avoid the herd that all-see-the-same-least would make.
    pair = sample(targets, min(2, len(targets)))
    return min(pair, key=lambda target: target.active)


def _choose_by_hash(targets: Sequence[Target], key: str) -> Target:
    # Rendezvous hashing: a target that goes moves only its own keys.
    def weight(target: Target) -> bytes:
        return blake2b(f"{target.url}\0{key}".encode(), digest_size=8).digest()

    return max(targets, key=weight)


def describe_upstreams(upstreams: Iterable[Upstream]) -> Iterator[Metric]:
    """The state of targets and connections, as metrics."""
    up = GaugeMetricFamily(
        "gateway_upstream_target_up",
        "Whether the target could be reached when last tried (1 or 0).",
        labels=["upstream", "target"],
    )
    connections = GaugeMetricFamily(
        "gateway_upstream_connections",
        "Connections to the targets of an upstream.",
        labels=["upstream", "state"],
    )
    for upstream in upstreams:
        for target in upstream.targets:
            up.add_metric([upstream.name, target.url], target.is_up())
        for state in ("active", "idle"):
            count = sum(getattr(target, state) for target in upstream.targets)
            connections.add_metric([upstream.name, state], count)
    yield up
    yield connections


def _now() -> float:
    return asyncio.get_running_loop().time()
