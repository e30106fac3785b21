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


def read_request(
    request: web.Request, gateway: EmbeddedGateway, path: str = "", *, is_forwarded: bool = False
) -> Request:
    """Make the gateway's value of a request; `path`, if given, takes the place of its own."""
    own, mark, query = request.raw_path.partition("?")
    target = f"{path or own}{mark}{query}"
    transport = request.transport
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    return gateway.read_request(
        request.method,
        target.encode("utf-8", "surrogateescape"),
        request.raw_headers,
        address=request.remote,
        scheme=request.scheme,
        certificate=None if tls is None else tls.getpeercert(binary_form=True),
        is_http_11=request.version >= (1, 1),
        is_forwarded=is_forwarded,
    )


def make_response(response: DirectResponse | EndpointResponse) -> web.Response:
    """Make the response of a response of the gateway's."""
    return web.Response(
        status=response.status, headers=CIMultiDict(response.headers), body=response.body
    )
