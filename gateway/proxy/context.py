"""The context of a request: filled in along the request path, stage by stage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.downstream.request import Request
from gateway.downstream.stream import BodySink, ClientStream
from gateway.http.errors import Headers
from gateway.oauth.access import CachedToken
from gateway.proxy.response_filter import ResponseFilter
from gateway.proxy.router import Route
from gateway.proxy.tracing import RequestSpan
from gateway.proxy.variables import Values
from gateway.upstream.upstream import Upstream


class RequestContext:
    """One request on its way."""

    # Not slots: most requests set few of these, and what is not set costs nothing here.
    is_providers = False
    """Whether it went to one of the provider's own endpoints."""
    route: Route | None = None
    response_filter: ResponseFilter | None = None
    """The route's changes of the response, generated ones included."""
    body_taps: tuple[Callable[[BodySink], BodySink], ...] = ()
    """Wrappers of the sink that receives the body."""
    body: bytes | None = None
    """The whole body, where it had to be read before the request is forwarded."""
    is_dpop = False
    """Whether the token is shown with the DPoP scheme."""
    token: CachedToken | None = None
    lookup: Callable[[], Awaitable[CachedToken]] | None = None
    """Looks the credential up again, where that is no bearer token."""
    key_id = ""
    """Of the API key, if it is one."""
    client_id = ""
    extra_fields: Headers = ()
    """Header fields for the response, generated ones included."""
    upstream: Upstream | None = None
    """Where it was sent to."""
    on_finish: Callable[[], None] | None = None
    """Called when it is over."""
    # When, on the log's clock.
    sent_at = 0.0
    """The request was given to its upstream."""
    ended_at = 0.0
    """The upstream was done with it."""
    upstream_s = 0.0
    # How it ended.
    status = 0
    refused_status = 0
    """What the status would be, were it no call of gRPC; 0 where it is `status`."""
    source = "gateway"
    grpc_status = -1
    """Of a response of gRPC; -1 where there is none."""
    reason = ""
    bytes_in = 0
    bytes_out = 0

    def __init__(self, stream: ClientStream, request: Request, started: float) -> None:
        self.stream = stream
        self.request = request
        self.started = started
        # Set here: mypyc makes no default of a class whose module it reads after this one.
        self.span: RequestSpan | None = None
        """Of its trace; None without tracing."""

    def responded(self, status: int, reason: str) -> None:
        """The gateway made the response itself."""
        self.source = "gateway"
        self.status = status
        self.reason = reason

    def refused_grpc(self, grpc_status: int) -> None:
        """The response that was made is one of gRPC."""
        self.refused_status, self.status = self.status, 200
        self.grpc_status = grpc_status

    @property
    def has_begun(self) -> bool:
        """Whether a response of the upstream is on its way to the client."""
        return self.source == "upstream"

    def values(self) -> Values:
        """Return the values of the variables in the route's templates, as far as they are known."""
        route = self.route.name if self.route is not None else ""
        return Values(self.request, route, self.client_id, self.token)
