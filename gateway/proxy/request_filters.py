"""Checks of a request before its token is looked at.

A route has the filters that its configuration asks for, in the order of `routing.md`;
most have none.
"""

from __future__ import annotations

from typing import Protocol

from gateway.addresses import Networks
from gateway.downstream.request import Request
from gateway.downstream.stream import BodySink
from gateway.http.errors import BadRequestError, ContentTooLargeError, ProblemError
from gateway.http.fields import Trailers, cgi_name
from gateway.http.request_head import RequestHead
from gateway.proxy.cors import Cors, is_preflight
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.header_rules import NO_CHANGES, RequestHeadModifier


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

    def check(self, request: Request) -> DirectResponse | None:
        """None lets the request go on, a response ends it. Raises `ProblemError` to reject it."""


class AddressFilter:
    """Lets pass who calls from the right networks."""

    name = "ip"

    def __init__(self, allow: Networks, deny: Networks) -> None:
        self._allow = allow
        self._deny = deny

    def check(self, request: Request) -> DirectResponse | None:
        address = request.client
        if address in self._deny or (self._allow and address not in self._allow):
            raise AddressRefusedError("address", "This address is not allowed to use this route.")
        return None


class HttpsRedirectFilter:
    """Sends who came by plain HTTP to the same place by https."""

    name = "https_only"

    def check(self, request: Request) -> DirectResponse | None:
        if request.scheme == "https":
            return None
        if not request.routing_host:
            raise BadRequestError("host", "The request has no Host header field to redirect to.")
        target = request.target
        location = f"https://{request.routing_host}{target.path}{target.query}"
        return DirectResponse(308, "https_only", (("Location", location),))


class CorsFilter:
    """Responds to preflights (Fetch standard, section 3.3)."""

    name = "cors"

    def __init__(self, cors: Cors) -> None:
        self._cors = cors

    def check(self, request: Request) -> DirectResponse | None:
        if request.method != "OPTIONS" or not is_preflight(request):
            return None
        fields = self._cors.preflight_fields(request)
        if fields is None:
            raise OriginRefusedError("cors_origin", "This origin is not allowed (CORS).")
        return DirectResponse(204, "cors_preflight", fields)


class MaintenanceFilter:
    """Is closed, but for some."""

    name = "maintenance"

    def __init__(self, *, retry_after_s: float, allow: Networks) -> None:
        self._fields = (("Retry-After", f"{retry_after_s:.0f}"),) if retry_after_s else ()
        self._allow = allow

    def check(self, request: Request) -> DirectResponse | None:
        if request.client not in self._allow:
            raise MaintenanceError("maintenance", "Closed for maintenance.", self._fields)
        return None


def check_body_limit(head: RequestHead, limit_bytes: int) -> None:
    """Reject a body that says it is too large. Raises `ContentTooLargeError`."""
    if head.length > limit_bytes:
        raise _too_large()


def _too_large() -> ContentTooLargeError:
    return ContentTooLargeError("body_too_large", "The request body is too large.")


class FilteredTrailers:
    """Passes a body on, and of its trailers those whose names the route, or the gateway, does not
    keep for itself."""

    def __init__(
        self, sink: BodySink, changes: RequestHeadModifier | None, certificate_header: bytes
    ) -> None:
        self._sink = sink
        self._fields = NO_CHANGES if changes is None else changes.fields
        self._certificate = cgi_name(certificate_header)

    def take(self, piece: bytes) -> None:
        self._sink.take(piece)

    def end_of_body(self, trailers: Trailers = ()) -> None:
        if trailers:
            trailers = tuple(
                field
                for field in trailers
                if not self._fields.removes(field[0]) and cgi_name(field[0]) != self._certificate
            )
        self._sink.end_of_body(trailers)

    def body_failed(self, error: ProblemError) -> None:
        self._sink.body_failed(error)


class LimitedBody:
    """Passes a body on until it is larger than it may be: then it fails, and no more of it
    gets through."""

    def __init__(self, sink: BodySink, limit_bytes: int) -> None:
        self._sink = sink
        self._left = limit_bytes

    def take(self, piece: bytes) -> None:
        if self._left < 0:
            return
        self._left -= len(piece)
        if self._left < 0:
            self._sink.body_failed(_too_large())
        else:
            self._sink.take(piece)

    def end_of_body(self, trailers: Trailers = ()) -> None:
        if self._left >= 0:
            self._sink.end_of_body(trailers)

    def body_failed(self, error: ProblemError) -> None:
        if self._left >= 0:
            self._sink.body_failed(error)
