"""Names of targets become addresses, and stay what DNS says.

Each address of a name is an endpoint of its own, as with Envoy's `STRICT_DNS`: a headless
Kubernetes service is as many endpoints as it has pods. A name is looked up again when its
TTL ends. Where that fails, the last known addresses stay in use: a DNS outage must not take
the upstream with it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import aiodns
import pycares

from gateway.background import RetryPauses
from gateway.upstream.target import Target
from gateway.upstream.upstream import Upstream

Family = Literal["auto", "ipv4", "ipv6", "all"]

MIN_TTL_S = 1.0
"""However short a TTL is, a name is not looked up more often."""

_LIBRARY_ERRORS = (aiodns.error.DNSError, pycares.AresError, ValueError, RuntimeError)
"""What aiodns and c-ares raise; for names also `UnicodeError` (idna), which is a `ValueError`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResolvedAddresses:
    """Result of a lookup."""

    addresses: tuple[str, ...]
    ttl_s: float
    """How long they hold; 0 where it is unknown, as in /etc/hosts."""


LookUp = Callable[[str], Awaitable[ResolvedAddresses]]
"""Finds the addresses of a name. Raises `OSError` where that fails, or there are none."""


class DnsResolver:
    """Asks the servers of /etc/resolv.conf, or those given as `host` or `host:port`; /etc/hosts
    and search domains count as usual."""

    def __init__(
        self, servers: Sequence[str] = (), *, family: Family = "auto", timeout_s: float = 2.0
    ) -> None:
        self._servers = list(servers)
        self._family = family
        self._timeout_s = timeout_s
        self._under_way: dict[str, asyncio.Future[ResolvedAddresses]] = {}

    async def look_up(self, name: str) -> ResolvedAddresses:
        family = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}.get(
            self._family, socket.AF_UNSPEC
        )
        # A resolver for each look-up: one caches responses for up to an hour, above all that
        # there is nothing, and has no switch for that.
        resolver = None
        try:
            resolver = aiodns.DNSResolver(self._servers or None, timeout=self._timeout_s, tries=2)
            found = await resolver.getaddrinfo(name, family=family, type=socket.SOCK_STREAM)
        except _LIBRARY_ERRORS as error:
            reason = error.args[-1] if error.args else type(error).__name__
            raise OSError(f"{name} can't be looked up: {reason}") from error
        finally:
            if resolver is not None:
                await resolver.close()
        nodes = found.nodes
        if self._family == "auto" and nodes:
            # They come in the order of RFC 6724, so the first is of a family that has a route.
            nodes = [node for node in nodes if node.family == nodes[0].family]
        if not nodes:
            raise OSError(f"{name} has no address")
        addresses = dict.fromkeys(
            node.addr[0].decode() if isinstance(node.addr[0], bytes) else node.addr[0]
            for node in nodes
        )
        return ResolvedAddresses(tuple(sorted(addresses)), float(min(node.ttl for node in nodes)))

    async def resolve(self, name: str) -> list[str]:
        """The addresses alone. However many connections want them, DNS is asked once at a time."""
        look_up = self._under_way.get(name)
        if look_up is None:
            look_up = self._under_way[name] = asyncio.ensure_future(self.look_up(name))
            look_up.add_done_callback(lambda done: self._forget(name, done))
        # It belongs to no caller: a connection that is given up must not fail the others.
        return list((await asyncio.shield(look_up)).addresses)

    def _forget(self, name: str, done: asyncio.Future[ResolvedAddresses]) -> None:
        del self._under_way[name]
        if not done.cancelled():
            done.exception()  # all who waited may be gone


class Discovery:
    """Keeps the endpoints of one upstream's targets what DNS says."""

    def __init__(
        self,
        upstream: Upstream,
        look_up: LookUp,
        *,
        refresh_s: float = 5.0,
        max_ttl_s: float = 60.0,
    ) -> None:
        """`refresh_s` is for responses without a TTL, and after a failure."""
        self._upstream = upstream
        self._look_up = look_up
        self._refresh_s = refresh_s
        self._max_ttl_s = max_ttl_s
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look names up."""
        for target in self._upstream.targets:
            if target.has_name:
                self._tasks.append(asyncio.create_task(self._follow(target)))

    def sync(self) -> None:
        """Nothing: it is what changes the endpoints."""

    async def stop(self) -> None:
        """Look nothing up any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _follow(self, target: Target) -> None:
        is_failing = False
        retries = RetryPauses(f"look-ups of upstream {self._upstream.name}")
        while True:
            pause_s = self._refresh_s
            try:
                found = await self._look_up(target.host)
                self._upstream.set_addresses(target, found.addresses)
                if found.ttl_s:
                    pause_s = min(max(found.ttl_s, MIN_TTL_S), self._max_ttl_s)
                is_failing = False
                retries.succeed()
            except OSError as error:
                if not is_failing:
                    _log.warning("upstream %s: %s", self._upstream.name, error)
                is_failing = True
            except Exception as error:
                pause_s = max(pause_s, retries.fail(error))
            await asyncio.sleep(pause_s)
