"""Heads of requests that an application forwards itself, as the data plane would make them."""

from __future__ import annotations

from urllib.parse import unquote

from gateway.downstream.request import NO_LINE, Request
from gateway.downstream.stream import DiscardingStream
from gateway.http.errors import BadRequestError, NoRouteError, UpgradeUnsupportedError
from gateway.http.request_head import read_request_line
from gateway.metrics import RouteMetrics
from gateway.proxy.context import RequestContext
from gateway.proxy.decisions import NoUpstream
from gateway.proxy.header_rules import RequestHeadModifier, Rewrite
from gateway.proxy.router import Route
from gateway.proxy.stages import understand
from gateway.proxy.upstream_head import build_request_head
from gateway.upstream.stream import UpstreamRequestHead


class ForwardedHeads:
    """Makes the heads of requests for one upstream."""

    def __init__(
        self, authority: str, *, strip_prefix: str = "", forward_token: bool = False
    ) -> None:
        """`authority` is the upstream's host and port; `strip_prefix` is left out of paths."""
        self._authority = authority.encode("ascii")
        self._prefix = strip_prefix
        rewrite = RequestHeadModifier(Rewrite(strip_prefix=strip_prefix)) if strip_prefix else None
        self._route = Route(
            "forwarded", "/", NoUpstream(), RouteMetrics(),
            forward_token=forward_token, changes=rewrite,
        )  # fmt: skip

    def begin(
        self, request: Request, target: bytes, verified: RequestContext | None
    ) -> RequestContext:
        """Return the context of a request, with the token that was verified, if one was. Its
        `target`, as received, has to be unambiguous, as on the gateway's routes."""
        error, line = request.error, NO_LINE
        try:
            line = read_request_line(b"%b %b HTTP/1.1" % (request.method.encode(), target))
        except BadRequestError as found:
            error = error or found
        context = RequestContext(
            DiscardingStream(), Request(line, request.head, request.peer, error), 0.0
        )
        context.route = self._route
        if verified is not None:
            context.token, context.client_id = verified.token, verified.client_id
        return context

    def make(self, context: RequestContext, routed_path: str) -> UpstreamRequestHead:
        """Make the head; `routed_path` is the path, decoded, by which the application's router
        chose the handler.

        Raises `BadRequestError`, also where an upstream could read another path from it, whose
        handler may be another one; `NoRouteError` for a path without the prefix;
        `UpgradeUnsupportedError` for a WebSocket.
        """
        request = context.request
        understand(context)
        path = request.target.path
        if unquote(path) != routed_path or set(request.target.other_readings) - {path}:
            raise BadRequestError("target_readings", "The path is ambiguous.")
        if self._prefix and not f"{path}/".startswith(f"{self._prefix}/"):
            raise NoRouteError("no_route", f"The path does not begin with {self._prefix}.")
        if request.is_websocket:
            raise UpgradeUnsupportedError("upstream_websocket", "WebSockets are not forwarded.")
        return build_request_head(context, self._route, default_host=self._authority)
