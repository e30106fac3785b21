"""A request as the gateway understands it, with every ambiguity refused.

The first half of the request path in one step: target, fields, framing, host and
client address are each read once, here, and never looked at in raw form again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address

from gateway.proxy.client import ClientRequest
from gateway.proxy.exchange import RequestBody
from gateway.proxy.headers import (
    RequestHead,
    check_host,
    choose_request_id,
    read_request_head,
    routing_host,
)
from gateway.proxy.problems import BadRequestError, NotImplementedMethodError
from gateway.proxy.target import parse_target


class Inbound:
    """A request that has exactly one reading."""

    __slots__ = (
        "body", "client", "head", "host", "is_trusted", "is_websocket", "request", "request_id",
        "routing_host", "target",
    )  # fmt: skip

    def __init__(self, request: ClientRequest) -> None:
        """Raises `ProblemError` for a request that can't be understood, or in two ways."""
        connection = request.connection
        self.request = request
        self.target = parse_target(request.target)
        self.head = head = read_request_head(
            request.raw_headers, max_bytes=connection.limits.head_bytes
        )
        self.is_trusted = connection.is_from_trusted_proxy
        """Whether the peer's word about the client counts."""
        self.request_id = choose_request_id(head, trusted=self.is_trusted)
        self.client = connection.peer
        """Address of the client, as far as it can be trusted."""
        if self.is_trusted:
            self.client = client_address(
                connection.peer, head.all(b"x-forwarded-for"), connection.server.is_trusted
            )
        _check_framing(request, head)
        self.host, self.routing_host = self._read_host()
        has_body = request.is_chunked or bool(head.one(b"content-length").strip(b"0"))
        self.body: RequestBody | None = request.body if has_body else None
        self.is_websocket = not has_body and _asks_for_websocket(request, head)

    def _read_host(self) -> tuple[bytes, str]:
        """The host as received, and as routes name it; empty for HTTP/1.0 without one."""
        connection = self.request.connection
        host = self.head.one(b"host")
        if self.target.authority is not None:
            host = self.target.authority.encode("ascii")
        elif not host and self.request.is_http_10:
            return b"", ""
        known = connection.host
        if known is None or known[0] != host:
            check_host(host)
            known = connection.host = host, routing_host(host)
        return known


def client_address(
    peer: str, forwarded_for: Iterable[bytes], is_trusted: Callable[[str], bool]
) -> str:
    """The address nearest to us that no trusted proxy vouches for.

    X-Forwarded-For is walked from the right: each trusted hop vouches for the one that
    it wrote down. What is not an address ends the walk.
    """
    hops = b",".join(forwarded_for).decode("latin-1").split(",")
    address = peer
    while hops and is_trusted(address):
        try:
            address = str(ip_address(hops.pop().strip()))
        except ValueError:
            break
    return address


def _check_framing(request: ClientRequest, head: RequestHead) -> None:
    if request.method == "CONNECT":
        raise NotImplementedMethodError("connect", "This gateway is not a forward proxy.")
    if request.is_chunked and (request.is_http_10 or head.all(b"content-length")):
        # RFC 9112 section 6.1: whoever framed this did not know what the other side would
        # understand, and another reader may see the message end elsewhere.
        raise BadRequestError("framing", "The framing of the request has two readings.")


def _asks_for_websocket(request: ClientRequest, head: RequestHead) -> bool:
    return (
        request.has_upgrade
        and request.method == "GET"
        and not request.is_http_10
        and head.one(b"upgrade").lower() == b"websocket"
    )
