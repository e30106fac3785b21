"""Which route a request takes: host first, then longest path, then method, then conditions.

The tables are built once; a match is a few dictionary look-ups. Each stage narrows and
never widens: once a path is the longest that matches, a method it does not take is 405,
conditions that no route of this path fulfils are 404, and neither falls through to
a shorter, perhaps open, route.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from gateway.codec import longest_prefix
from gateway.http.errors import BadRequestError, MethodNotAllowedError, NoRouteError
from gateway.http.target import RequestTarget, refused_escape
from gateway.metrics import RouteMetrics
from gateway.oauth.access import Access
from gateway.proxy.conditions import Condition, Fields
from gateway.proxy.cors import Cors, is_preflight, requested_method
from gateway.proxy.direct_response import Responder
from gateway.proxy.header_rules import RequestHeadModifier
from gateway.proxy.mcp import McpRules
from gateway.proxy.mirror import Mirror
from gateway.proxy.request_filters import RequestFilter
from gateway.proxy.response_filter import ResponseRules
from gateway.proxy.route_credentials import RouteCredentials
from gateway.proxy.traffic_split import Split
from gateway.rate_limit import RateLimit
from gateway.upstream.upstream import Upstream

_longest_prefix: Final = longest_prefix  # as in `downstream.request`
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
    conditions: tuple[Condition, ...] = ()
    auth: Auth = "required"
    access: Access = field(default_factory=Access)
    credentials: RouteCredentials | None = None
    """What clients may authenticate by, where that is more than bearer tokens, or less."""
    forward_token: bool = False
    closes_with_token: bool = False
    """Whether a WebSocket ends when its token does."""
    upgrades: frozenset[bytes] = frozenset()
    """Protocols besides WebSocket that a request may switch to; lower-case."""
    passes_escaped_slashes: bool = False
    """Whether paths with `%2F` and `%5C` are forwarded."""
    merges_slashes: bool = True
    """Whether empty segments of a path are left out on the way to the upstream."""
    rate_limit: RateLimit | None = None
    is_limit_shared: bool = False
    """Whether the rate limit is one for all clients together."""
    # What few routes have is None or empty, and costs the others a look.
    request_filters: tuple[RequestFilter, ...] = ()
    """What responds or rejects before a token is looked at, in this order."""
    body_limit: int | None = None
    """The largest body that it takes, in bytes."""
    response_rules: ResponseRules | None = None
    """Rules for responses, generated ones included."""
    changes: RequestHeadModifier | None = None
    """How the request's head changes on its way."""
    responder: Responder | None = None
    """Responds in place of the upstream."""
    split: Split | None = None
    """Who chooses one of several upstreams."""
    mirror: Mirror | None = None
    """Who sends a copy elsewhere."""
    mcp: McpRules | None = None
    """Checks what a request calls of the MCP server behind."""
    cors: Cors | None = None
    """Rules for preflights; the route's filters know them, too."""

    def fulfils(self, path: str, request: Fields) -> bool:
        """Whether a request meets the conditions."""
        return all(condition.holds(path, request) for condition in self.conditions)


class _NoFields:
    """Stands for a request of which only the path is known."""

    def header_values(self, name: bytes) -> Sequence[bytes]:
        return ()

    def query_values(self, name: str) -> Sequence[str]:
        return ()


NO_FIELDS = _NoFields()


class _Entry:
    """The routes of one path, by method."""

    __slots__ = ("_any", "_named", "_preflights", "_ranked")

    def __init__(self) -> None:
        self._named: dict[str, Route] = {}
        self._any: Route | None = None
        self._ranked: list[Route] = []
        """All of them in the order in which they are asked; empty where the tables above,
        which know no conditions, are enough."""
        self._preflights: list[Route] = []
        """Those that respond to preflights, in the order in which they are asked."""

    def add(self, route: Route) -> None:
        """Take a route in."""
        if route.conditions or route.cors is not None or self._ranked:
            if not self._ranked:
                known = [*self._named.values(), self._any]
                self._ranked = list(dict.fromkeys(one for one in known if one is not None))
                self._ranked.sort(key=_rank)
            # Behind its equals: among them, the order of the configuration decides.
            insort(self._ranked, route, key=_rank)
            if route.cors is not None:
                insort(self._preflights, route, key=_preflight_rank)
        else:
            for method in route.methods:
                self._named[method] = route
            if not route.methods:
                self._any = route

    def choose(self, path: str, method: str, request: Fields) -> Route:
        """The route for a request. Raises `MethodNotAllowedError`, `NoRouteError`, and
        `BadRequestError` for a query with too many parameters to look at."""
        if self._ranked:
            return self._choose_ranked(path, method, request)
        route = self._named.get(method, self._any)
        if route is None:
            raise _not_allowed(self._named)
        return route

    def _choose_ranked(self, path: str, method: str, request: Fields) -> Route:
        if method == "OPTIONS" and self._preflights and is_preflight(request):
            requested = requested_method(request)
            for route in self._preflights:
                if not route.methods or requested in route.methods:
                    # A preflight has none of the fields that the request itself will have.
                    return route
        is_method_taken = False
        for route in self._ranked:
            if not route.methods or method in route.methods:
                is_method_taken = True
                if route.fulfils(path, request):
                    return route
        if is_method_taken:
            raise NoRouteError(
                "no_route", "A route matches the path, but not the other conditions of the request."
            )
        raise _not_allowed(method for route in self._ranked for method in route.methods)


def _rank(route: Route) -> tuple[bool, int]:
    return not route.methods, -len(route.conditions)


def _preflight_rank(route: Route) -> tuple[int, bool]:
    return len(route.conditions), not route.methods


def _not_allowed(methods: Iterable[str]) -> MethodNotAllowedError:
    allow = ", ".join(sorted(set(methods)))
    return MethodNotAllowedError(
        "method_not_allowed", f"This path takes {allow}.", (("Allow", allow),)
    )


_LONG_HOST: Final = 255
"""More characters than any name has; clients can send them all the same."""
_SHORT_PATH: Final = 64
"""Characters of a path that need not be cut before its prefixes are looked up."""


class _Paths:
    """The routes of one host, by path."""

    __slots__ = ("_depth", "_exact", "_prefix")

    def __init__(self) -> None:
        self._exact: dict[str, _Entry] = {}
        self._prefix: dict[str, _Entry] = {}
        self._depth = 0
        """Slashes of the deepest prefix."""

    def add(self, route: Route) -> None:
        table = self._exact if route.exact else self._prefix
        table.setdefault(route.path, _Entry()).add(route)
        if not route.exact:
            self._depth = max(self._depth, route.path.count("/"))

    def find(self, path: str) -> _Entry | None:
        if found := self._exact.get(path):
            return found
        if found := _longest_prefix(self._prefix, path):
            return found
        prefix = path
        if len(path) > _SHORT_PATH:
            # No prefix is deeper: what is below costs nothing, however long a client makes it.
            prefix = "/".join(path.split("/", self._depth + 1)[: self._depth + 1]) or "/"
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
        self.routes = tuple(routes)
        """In the order of the configuration."""
        self._any_host = _Paths()
        self._hosts: dict[str, _Paths] = {}
        self._wildcards: dict[str, _Paths] = {}
        for route in self.routes:
            for table in self._tables_of(route):
                table.add(route)
        self._passes_escaped_slashes = any(one.passes_escaped_slashes for one in self.routes)
        self.uses_hosts = bool(self._hosts or self._wildcards)
        self.uses_credentials = any(route.credentials is not None for route in self.routes)
        self.uses_mcp = any(route.mcp is not None for route in self.routes)
        self.uses_responders = any(route.responder is not None for route in self.routes)
        self._labels = max((suffix.count(".") for suffix in self._wildcards), default=0)
        """Of the longest wildcard."""

    def _tables_of(self, route: Route) -> list[_Paths]:
        if not route.hosts:
            return [self._any_host]
        return [
            self._wildcards.setdefault(host[1:], _Paths())
            if host.startswith("*.")
            else self._hosts.setdefault(host, _Paths())
            for host in route.hosts
        ]

    def match(
        self, host: str, target: RequestTarget, method: str, request: Fields = NO_FIELDS
    ) -> Route:
        """The route for a request to `target`. `host` is lower-case, without port and trailing
        dot.

        Raises `NoRouteError`, `MethodNotAllowedError`, and `BadRequestError` where a laxer
        server behind might read the path as that of another route.
        """
        if target.has_escaped_slash and not self._passes_escaped_slashes:
            raise refused_escape()
        route = self._match_path(host, target.path, method, request)
        if target.has_escaped_slash and not route.passes_escaped_slashes:
            raise refused_escape()
        for reading in target.other_readings:
            if self._match_path(host, reading, method, request) is not route:
                raise BadRequestError("target_readings", "The path is ambiguous.")
        return route

    def _match_path(self, host: str, path: str, method: str, request: Fields) -> Route:
        entry = self._find_for_host(host, path) if self.uses_hosts else None
        if entry is None:
            entry = self._any_host.find(path)
        if entry is None:
            raise NoRouteError("no_route", "No route matches this path.")
        return entry.choose(path, method, request)

    def _find_for_host(self, host: str, path: str) -> _Entry | None:
        if (paths := self._hosts.get(host)) and (found := paths.find(path)):
            return found
        # `*.example.com` covers every name below it; the longest suffix wins.
        suffix = host
        if len(host) > _LONG_HOST:
            suffix = ".".join(("", *host.rsplit(".", self._labels)[1:]))
        while "." in suffix:
            suffix = suffix[suffix.index(".") :]
            if (paths := self._wildcards.get(suffix)) and (found := paths.find(path)):
                return found
            suffix = suffix[1:]
        return None
