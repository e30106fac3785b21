"""What a request must pass before its token is looked at.

A route has the gates that its configuration asks for, in the order that `docs/routing.md`
tells; most have none.
"""

from __future__ import annotations

from typing import Protocol

from gateway.addresses import Networks
from gateway.downstream.request import BodySink, ClientRequest
from gateway.http.errors import BadRequestError, ContentTooLargeError, ProblemError
from gateway.proxy.body_limit import LimitedBody
from gateway.proxy.cors import Cors, is_preflight
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.response_filter import ResponseFilter, ResponseRules


class AddressRefusedError(ProblemError):
    """The client calls from an address that the route does not take."""

    status = 403


class MaintenanceError(ProblemError):
    """Closed for now (RFC 9110 section 15.6.4)."""

    status = 503


class OriginRefusedError(ProblemError):
    """A preflight of an origin that the route does not take."""

    status = 403


class RequestFilter(Protocol):
    """One of them."""

    name: str
    """The key of the configuration that asks for it, as `gateway explain` shows it."""

    def check(self, request: ClientRequest) -> DirectResponse | None:
        """None lets the request go on; a response ends it. Raises `ProblemError`, to refuse."""


class ResponseRulesFilter:
    """Lets all pass, and sees to it that their responses, refusals too, are as the route wants."""

    name = "response_headers"

    def __init__(self, plan: ResponseRules) -> None:
        self._plan = plan

    def check(self, request: ClientRequest) -> DirectResponse | None:
        """See `RequestFilter`."""
        request.response_filter = ResponseFilter(request, self._plan)
        return None


class AddressFilter:
    """Lets pass who calls from the right networks."""

    name = "ip"

    def __init__(self, allow: Networks, deny: Networks) -> None:
        self._allow = allow
        self._deny = deny

    def check(self, request: ClientRequest) -> DirectResponse | None:
        """See `RequestFilter`."""
        address = request.client
        if address in self._deny or (self._allow and address not in self._allow):
            raise AddressRefusedError("address", "This address is not allowed to use this route.")
        return None


class HttpsRedirectFilter:
    """Sends who came by plain HTTP to the same place by https."""

    name = "https_only"

    def check(self, request: ClientRequest) -> DirectResponse | None:
        """See `RequestFilter`."""
        if request.scheme == "https":
            return None
        if not request.routing_host:
            raise BadRequestError("host", "The request has no Host header field to redirect to.")
        target = request.target
        location = f"https://{request.routing_host}{target.path}{target.query}"
        return DirectResponse(308, "https_only", (("Location", location),))


class CorsFilter:
    """Answers preflights (Fetch standard, section 3.3)."""

    name = "cors"

    def __init__(self, cors: Cors) -> None:
        self._cors = cors

    def check(self, request: ClientRequest) -> DirectResponse | None:
        """See `RequestFilter`."""
        if request.method != "OPTIONS" or not is_preflight(request.raw_headers):
            return None
        fields = self._cors.preflight_fields(request.raw_headers)
        if fields is None:
            raise OriginRefusedError("cors_origin", "This origin is not allowed (CORS).")
        return DirectResponse(204, "cors_preflight", fields)


class MaintenanceFilter:
    """Is closed, but for some."""

    name = "maintenance"

    def __init__(self, *, retry_after_s: float, allow: Networks) -> None:
        self._fields = (("Retry-After", f"{retry_after_s:.0f}"),) if retry_after_s else ()
        self._allow = allow

    def check(self, request: ClientRequest) -> DirectResponse | None:
        """See `RequestFilter`."""
        if request.client not in self._allow:
            raise MaintenanceError("maintenance", "Closed for maintenance.", self._fields)
        return None


class BodyLimitFilter:
    """Refuses bodies that are too large: at once where the length is told, else as soon as
    they are."""

    name = "limits.body"

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes

    def check(self, request: ClientRequest) -> DirectResponse | None:
        """See `RequestFilter`."""
        head = request.head
        if head.length > self._limit:
            raise ContentTooLargeError("body_too_large", "The request body is too large.")
        if head.is_chunked:
            request.body_taps = (*request.body_taps, self._limited)
        return None

    def _limited(self, sink: BodySink) -> BodySink:
        return LimitedBody(sink, self._limit)
