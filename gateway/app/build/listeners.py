"""From the configuration to the plain values that everything below the app takes."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable

from gateway.addresses import Networks
from gateway.app.build.claims import claim_fields
from gateway.app.build.derive import derive, rate_limit
from gateway.app.build.provider import build_access
from gateway.app.build.routes import (
    build_changes,
    build_conditions,
    build_cors,
    build_credentials,
    build_filters,
    build_mcp,
    build_mirror,
    build_responder,
    build_response_rules,
    build_split,
)
from gateway.config import Config
from gateway.downstream.h2_limits import H2Settings
from gateway.downstream.handshake import ProxyRules
from gateway.downstream.stream import ClientLimits
from gateway.http.h2 import is_available
from gateway.metrics import Metrics
from gateway.oauth.binding.dpop import DpopProofs
from gateway.proxy.decisions import NoUpstream
from gateway.proxy.router import Route, Router
from gateway.upstream.upstream import Upstream
from gateway.workers.limits import GroupLimiter
from gateway.workers.messages import Message

SPARE_FILES = 64
"""Descriptors of a process that are not for clients and upstreams."""


def group_limiter(config: Config, announce: Callable[[Message], None]) -> GroupLimiter:
    """The same limit for one of several processes; `announce` notifies the others."""
    limit = config.provider.failed_client_limit
    return GroupLimiter(failures=limit.failures, window_s=limit.window, announce=announce)


def client_limits(config: Config) -> ClientLimits:
    """Return the limits of client connections in one process: of what is shared, its share."""
    listen = config.listen
    return derive(
        ClientLimits,
        listen.limits,
        max_connections=min(
            math.ceil(listen.max_connections / config.workers), _affordable_connections()
        ),
        max_per_source=listen.max_connections_per_source,
        head_timeout_s=listen.timeouts.head,
        body_timeout_s=listen.timeouts.body,
        keepalive_timeout_s=listen.timeouts.keepalive,
        half_close_timeout_s=listen.timeouts.half_close,
    )


def http2_settings(config: Config) -> H2Settings | None:
    """Return the limits of HTTP/2 connections of clients; None where HTTP/2 is off."""
    http2 = config.listen.http2
    is_on = is_available() if http2.enabled == "auto" else http2.enabled
    return derive(H2Settings, http2) if is_on else None


def _affordable_connections() -> int:
    """The client connections that the descriptors of a process are enough for: each may need one
    to an upstream, and probes, files and the store must not be the first to go without."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, (soft - SPARE_FILES) // 2)


def trusted_proxies(config: Config) -> Networks:
    """The networks whose word about the client counts."""
    return Networks.parse(config.trusted_proxies)


def proxy_rules(config: Config) -> ProxyRules | None:
    """Return which peers must send a PROXY protocol header; None for none."""
    settings = config.listen.proxy_protocol
    if settings is None:
        return None
    return ProxyRules(
        Networks.parse(settings.trusted_proxies), takes_others=settings.others == "plain"
    )


def build_routes(
    config: Config,
    upstreams: dict[str, Upstream],
    metrics: Metrics,
    proofs: DpopProofs | None = None,
) -> tuple[Route, ...]:
    """The routes in the order of the configuration."""
    cors = {route.name: build_cors(route) for route in config.routes}
    filled = claim_fields(config)
    return tuple(
        Route(
            name=route.name,
            path=route.match.path,
            upstream=upstreams[route.upstream] if route.upstream else NoUpstream(),
            metrics=metrics.data_plane.route(route.name),
            exact=route.match.exact,
            hosts=tuple(route.match.hosts),
            methods=tuple(route.match.methods),
            auth=route.auth,
            access=build_access(config, route, proofs),
            credentials=build_credentials(route, config.provider.api_keys.header),
            conditions=build_conditions(route),
            request_filters=build_filters(route, cors[route.name], config.maintenance),
            body_limit=None if route.limits is None else route.limits.body,
            response_rules=build_response_rules(route, cors[route.name], upstreams),
            changes=build_changes(route, config.provider.api_keys.header, filled),
            responder=build_responder(route),
            split=build_split(route, upstreams, metrics.data_plane.split_requests),
            mirror=build_mirror(route, upstreams, metrics.data_plane.mirror_requests),
            mcp=build_mcp(route, metrics.data_plane.mcp_calls),
            cors=cors[route.name],
            forward_token=route.forward_token,
            closes_with_token=route.close_websockets_with_token,
            upgrades=frozenset(name.lower().encode() for name in route.upgrades),
            passes_escaped_slashes=route.allow_encoded_slashes,
            merges_slashes=route.merge_slashes,
            rate_limit=rate_limit(route.rate_limit),
            is_limit_shared=route.rate_limit is not None and route.rate_limit.by == "route",
        )
        for route in config.routes
    )


def build_router(
    config: Config,
    upstreams: dict[str, Upstream],
    metrics: Metrics,
    proofs: DpopProofs | None = None,
) -> Router:
    """The compiled routes."""
    return Router(build_routes(config, upstreams, metrics, proofs))
