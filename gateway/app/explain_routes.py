"""Why a route does not take a request that another one takes, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.downstream.request import Request
from gateway.proxy.router import Route


def why_not(
    route: Route, chosen: Route | None, request: Request, *, is_secret: Callable[[str], bool]
) -> str:
    """The first stage of the precedence rule at which the route drops out. Names of fields and
    parameters that `is_secret` are given without the value that they should have."""
    return next(_reasons(route, chosen, request, is_secret))


def _reasons(
    route: Route, chosen: Route | None, request: Request, is_secret: Callable[[str], bool]
) -> Iterator[str]:
    host, path = request.routing_host, request.target.path
    if route.hosts and not any(_fits(name, host) for name in route.hosts):
        yield f"host is not {' or '.join(route.hosts)}"
    if not _takes_path(route, path):
        yield f"path is not {'exactly' if route.exact else 'at or below'} {route.path}"
    if chosen is not None and _host_rank(route, host) != _host_rank(chosen, host):
        yield f"{chosen.name} names the host more closely"
    if chosen is not None and (route.exact, route.path) != (chosen.exact, chosen.path):
        yield f"{chosen.name} has the longer path, {chosen.path}"
    if route.methods and request.method not in route.methods:
        yield f"method is not {' or '.join(route.methods)}"
    if chosen is not None and chosen.methods and not route.methods:
        yield f"{chosen.name} names the method"
    for condition in route.conditions:
        if not condition.holds(path, request):
            shown = str(condition)
            kind, name, _ = shown.split(" ", 2)
            yield f"{f'{kind} {name} = <hidden>' if is_secret(name) else shown} does not hold"
    if chosen is not None:
        yield f"{chosen.name} has more conditions, or comes first in the file"
    yield "another route has a longer path or names the host, and does not take this request"


def _fits(name: str, host: str) -> bool:
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _host_rank(route: Route, host: str) -> tuple[int, int]:
    ranks = [
        (1, len(name)) if name.startswith("*.") else (2, 0)
        for name in route.hosts
        if _fits(name, host)
    ]
    return max(ranks, default=(0, 0))


def _takes_path(route: Route, path: str) -> bool:
    if route.exact:
        return path == route.path
    return f"{path}/".startswith(route.path.rstrip("/") + "/")
