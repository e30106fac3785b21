"""Which route a request takes: host first, then longest path, then method.

The tables are built once; a match is a few dictionary look-ups. Each stage narrows and
never widens: once a path is the longest that matches, a method it does not take is 405
and does not fall through to a shorter, perhaps open, route.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from gateway.metrics import RouteMetrics
from gateway.oauth.validator import Access
from gateway.proxy.problems import BadRequestError, MethodNotAllowedError, NoRouteError
from gateway.proxy.target import Target
from gateway.proxy.upstreams.upstream import Upstream
from gateway.rate_limit import RateLimit

Auth = Literal["required", "none", "optional"]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A route of the configuration, compiled."""

    name: str
    path: str
    upstream: Upstream
    metrics: RouteMetrics = field(repr=False)
    exact: bool = False
    hosts: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    auth: Auth = "required"
    access: Access = field(default_factory=Access)
    strip_prefix: str = ""
    forward_token: bool = False
    rate_limit: RateLimit | None = None
    is_limit_shared: bool = False
    """Whether the rate limit is one for all clients together."""

    def rewrite_path(self, path: str) -> str:
        """The path that the upstream gets for the canonical `path` that this route matched."""
        if not self.strip_prefix:
            return path
        # The rest of a canonical path after a whole segment is empty or starts with its
        # only slash, so it is canonical again.
        return path[len(self.strip_prefix) :] or "/"


class _Methods:
    """The routes of one path, by method."""

    __slots__ = ("_any", "_named")

    def __init__(self) -> None:
        self._named: dict[str, Route] = {}
        self._any: Route | None = None

    def add(self, route: Route) -> None:
        for method in route.methods:
            self._named[method] = route
        if not route.methods:
            self._any = route

    def choose(self, method: str) -> Route:
        route = self._named.get(method, self._any)
        if route is None:
            allow = ", ".join(sorted(self._named))
            raise MethodNotAllowedError(
                "method_not_allowed", f"This path takes {allow}.", (("Allow", allow),)
            )
        return route


class _Paths:
    """The routes of one host, by path."""

    __slots__ = ("_exact", "_prefix")

    def __init__(self) -> None:
        self._exact: dict[str, _Methods] = {}
        self._prefix: dict[str, _Methods] = {}

    def add(self, route: Route) -> None:
        table = self._exact if route.exact else self._prefix
        table.setdefault(route.path, _Methods()).add(route)

    def find(self, path: str) -> _Methods | None:
        if found := self._exact.get(path):
            return found
        prefix = path
        while True:
            if found := self._prefix.get(prefix):
                return found
            if prefix == "/":
                return None
            # Cutting whole segments is what keeps `/public` from matching `/publicity`.
            prefix = prefix[: prefix.rindex("/")] or "/"


class Router:
    """The compiled routes of one configuration."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._any_host = _Paths()
        self._hosts: dict[str, _Paths] = {}
        self._wildcards: dict[str, _Paths] = {}
        for route in routes:
            for table in self._tables_of(route):
                table.add(route)
        self.uses_hosts = bool(self._hosts or self._wildcards)

    def _tables_of(self, route: Route) -> list[_Paths]:
        if not route.hosts:
            return [self._any_host]
        return [
            self._wildcards.setdefault(host[1:], _Paths())
            if host.startswith("*.")
            else self._hosts.setdefault(host, _Paths())
            for host in route.hosts
        ]

    def match(self, host: str, target: Target, method: str) -> Route:
        """The route for a request. `host` is lower-case, without port and trailing dot.

        Raises `NoRouteError`, `MethodNotAllowedError`, and `BadRequestError` where a laxer
        server behind might read the path as that of another route.
        """
        route = self._match_path(host, target.path, method)
        for reading in target.other_readings:
            if self._match_path(host, reading, method) is not route:
                raise BadRequestError("target_readings", "The path has two readings.")
        return route

    def _match_path(self, host: str, path: str, method: str) -> Route:
        methods = self._find_for_host(host, path) if self.uses_hosts else None
        if methods is None:
            methods = self._any_host.find(path)
        if methods is None:
            raise NoRouteError("no_route", "No route matches this path.")
        return methods.choose(method)

    def _find_for_host(self, host: str, path: str) -> _Methods | None:
        if (paths := self._hosts.get(host)) and (found := paths.find(path)):
            return found
        # `*.example.com` covers every name below it; the longest suffix wins.
        suffix = host
        while "." in suffix:
            suffix = suffix[suffix.index(".") :]
            if (paths := self._wildcards.get(suffix)) and (found := paths.find(path)):
                return found
            suffix = suffix[1:]
        return None
