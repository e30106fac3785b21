"""The request head that the upstream gets: what may pass, then what the gateway says.

RFC 9110 section 7.6.3 (Via), RFC 7239 (Forwarded), W3C Trace Context.
"""

from __future__ import annotations

from gateway.oauth.validator import CachedToken
from gateway.proxy.headers import render_forwarding, render_trace
from gateway.proxy.inbound import Inbound
from gateway.proxy.router import Route

_VIA = b"Via: 1.1 gateway\r\n"


def render_request_head(
    inbound: Inbound,
    route: Route,
    token: CachedToken | None,
    *,
    default_host: bytes,
    scheme: bytes,
) -> bytes:
    """The head, from the request line to the empty line.

    The gateway's own lines come after everything of the client's was filtered, so
    nothing that the client names in Connection can remove them.
    """
    request, head, target = inbound.request, inbound.head, inbound.target
    host = inbound.host or default_host
    path = route.rewrite_path(target.path) + target.query
    parts = [
        b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (request.method.encode(), path.encode(), host),
        *head.lines,
    ]
    if request.is_chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif length := head.one(b"content-length"):
        parts.append(b"Content-Length: %b\r\n" % length)
    if inbound.is_websocket:
        parts.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    if route.forward_token:
        parts += [b"Authorization: %b\r\n" % value for value in head.all(b"authorization")]
    if token is not None:
        parts.append(token.identity)
    parts.append(b"X-Request-Id: %b\r\n" % inbound.request_id)
    parts.append(render_trace(head, inbound.request_id))
    parts.append(_forwarding_lines(inbound, host, scheme))
    parts.append(b"\r\n")
    return b"".join(parts)


def _forwarding_lines(inbound: Inbound, host: bytes, scheme: bytes) -> bytes:
    connection = inbound.request.connection
    known = connection.forwarding
    if known is not None and known[0] == host and not inbound.is_trusted:
        return known[1]
    lines = _VIA + render_forwarding(
        inbound.head,
        host=host,
        peer=connection.peer,
        scheme=scheme,
        trusted=inbound.is_trusted,
    )
    connection.forwarding = host, lines
    return lines
