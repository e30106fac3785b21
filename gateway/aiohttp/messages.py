"""Requests of aiohttp as the gateway's values, and its responses as aiohttp's."""

from __future__ import annotations

from aiohttp import web
from multidict import CIMultiDict

from gateway.app.embedded import EmbeddedGateway
from gateway.downstream.request import Request
from gateway.oauth.endpoints import EndpointResponse
from gateway.proxy.context import RequestContext
from gateway.proxy.direct_response import DirectResponse

CONTEXT = web.RequestKey("context", RequestContext)
"""What `bearer_middleware` found out about a request."""


def read_target(request: web.Request) -> bytes:
    """Return path and query as they came."""
    return request.raw_path.encode("utf-8", "surrogateescape")


def read_request(request: web.Request, gateway: EmbeddedGateway, path: str = "") -> Request:
    """Make the gateway's value of a request; `path`, if given, takes the place of its own."""
    own, mark, query = read_target(request).partition(b"?")
    transport = request.transport
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    return gateway.read_request(
        request.method,
        (path.encode() or own) + mark + query,
        request.raw_headers,
        address=request.remote,
        scheme=request.scheme,
        certificate=None if tls is None else tls.getpeercert(binary_form=True),
        is_http_11=request.version >= (1, 1),
    )


def make_response(response: DirectResponse | EndpointResponse) -> web.Response:
    """Make the response of a response of the gateway's."""
    return web.Response(
        status=response.status, headers=CIMultiDict(response.headers), body=response.body
    )
