"""The request head that the upstream gets: what may pass, then what the gateway says.

RFC 9110 section 7.6.3 (Via), RFC 7239 (Forwarded), W3C Trace Context.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from gateway.addresses import LOCAL_PEER, forwarded_node, read_forwarded, split_hops
from gateway.codec import is_traceparent
from gateway.downstream.request import Request
from gateway.http.request_head import RequestHead, is_host
from gateway.oauth.models import AccessToken
from gateway.proxy.context import RequestContext
from gateway.proxy.router import Route
from gateway.proxy.tracing import TRACEPARENT
from gateway.upstream.stream import UpstreamRequestHead

_is_traceparent: Final = is_traceparent  # as in `downstream.request`
_VISIBLE = " !#$&'()*+,/:;=?@[]^`{|}~"


def build_request_head(
    context: RequestContext, route: Route, *, default_host: bytes
) -> UpstreamRequestHead:
    """Make the head for the upstream.

    The gateway's own lines come after everything of the client's was filtered, so
    nothing that the client names in Connection can remove them.
    """
    request, token = context.request, context.token
    head, target, changes = request.head, request.target, route.changes
    line, onward = request.line.onward, head.onward
    host = authority = request.host or default_host
    if changes is not None:
        line = changes.line(request)
        authority = changes.host_for(host, default_host)
        lines = changes.lines(context.values())
        onward = _render_onward(request, host=host, lines=lines)
    elif onward is None or target.authority is not None:
        onward = _render_onward(request, host=host, lines=head.lines)
        if request.host and target.authority is None:
            head.onward = onward
    if target.unmerged_path and not route.merges_slashes:
        line = _render_unmerged(request, route)
    identity = b"" if token is None else token.identity
    if route.forward_token:
        for value in head.all(b"authorization"):
            identity += b"Authorization: %b\r\n" % value
    span = context.span
    trace = render_trace(head, request.trace_id) if span is None else span.onward(default_host)
    return UpstreamRequestHead(
        line,
        authority,
        b"%b%b%bX-Request-Id: %b\r\n" % (onward, identity, trace, request.request_id),
        method=request.method,
        length=head.length if b"content-length" in head.fields else -1,
        is_chunked=head.is_chunked,
        upgrade=_upgrade_of(request, route),
        takes_trailers=head.takes_trailers,
    )


def _render_unmerged(request: Request, route: Route) -> bytes:
    """Render the request line with the empty segments that the route keeps."""
    path = request.target.with_empty_segments(route.path)
    if route.changes is not None:
        # Never `//host` at the start: an upstream could redirect to it.
        path = "/" + route.changes.path(path).lstrip("/")
    return f"{request.method} {path}{request.target.query} HTTP/1.1\r\n".encode("ascii")


def _upgrade_of(request: Request, route: Route) -> bytes:
    """Return the protocol that the request may switch to on this route; empty for none."""
    if request.is_websocket:
        return b"websocket"
    upgrade = request.head.upgrade
    if not upgrade or request.is_http_10 or upgrade.lower() not in route.upgrades:
        return b""
    return upgrade


def _render_onward(request: Request, *, host: bytes, lines: bytes) -> bytes:
    """`host` is what the client called us."""
    head, peer = request.head, request.peer
    known = peer.forwarding
    if known is not None and known[0] == host and not peer.is_trusted:
        forwarding = known[1]
    else:
        forwarding = render_forwarding(
            head,
            host=host,
            peer=peer.address,
            scheme=peer.scheme,
            client_scheme=request.scheme,
            claimed_host=request.forwarded_host,
            trusted=peer.is_trusted,
        )
        peer.forwarding = host, forwarding
    received_by = b"1.1" if peer.protocol == "HTTP/1.1" else b"2.0"
    return b"%bVia: %b gateway\r\n%b" % (lines, received_by, forwarding)


def render_identity(token: AccessToken) -> bytes:
    """Render the lines that identify the caller to the upstream.

    The name may be any text; what is not visible ASCII is percent-encoded as UTF-8.
    """
    name = quote(token.client_name, safe=_VISIBLE)
    lines = (
        f"X-Client-Id: {token.client_id}\r\n"
        f"X-Client-Name: {name}\r\n"
        f"X-Token-Scopes: {token.scope}\r\n"
    )
    # Only where the subject is not the client: a user, or the first of a chain of services.
    subject = token.claims.get("sub")
    if isinstance(subject, str) and subject != token.client_id:
        lines += f"X-Token-Subject: {quote(subject, safe=_VISIBLE)}\r\n"
    return lines.encode("ascii")


def render_trace(head: RequestHead, trace_id: bytes) -> bytes:
    """The W3C trace context: the caller's if it is well-formed, else a new trace.

    What is well-formed passes as it is: without spans of our own, another parent id would
    name a span that is never exported (W3C Trace Context section 3.4, unmodified propagation).

    A new trace says "sampled", as tracers do where no decision was made; "not sampled"
    would switch off the tracing of every service behind the gateway.
    """
    if b"traceparent" in head.fields:
        traceparent = head.one(b"traceparent")
        if _is_traceparent(traceparent) or TRACEPARENT.fullmatch(traceparent):
            lines = b"traceparent: %b\r\n" % traceparent
            for value in head.all(b"tracestate"):
                lines += b"tracestate: %b\r\n" % value
            return lines
    # A span id has to be unique within its trace, which has no other span yet.
    return b"traceparent: 00-%b-%b-01\r\n" % (trace_id, trace_id[16:])


def render_forwarding(
    head: RequestHead,
    *,
    host: bytes,
    peer: str,
    scheme: str,
    client_scheme: str,
    claimed_host: str = "",
    trusted: bool,
) -> bytes:
    """X-Forwarded-For, -Proto and -Host, and Forwarded (RFC 7239), which say the same.

    `host` is what the client called us, `scheme` that of the connection, `client_scheme` by which
    the client called. What the peer says is kept only if it is a trusted proxy; what it says in
    one form only is written in the other, too.
    """
    node = "unknown" if peer == LOCAL_PEER else forwarded_node(peer)
    hops, elements = peer, f'for={node};host="{host.decode("ascii")}";proto={scheme}'
    if trusted:
        given = split_hops(head.all(b"x-forwarded-for"))
        forwarded = b", ".join(head.all(b"forwarded")).decode("latin-1").strip(" \t,")
        if forwarded and not given:
            given = [one.node for one in read_forwarded(head.all(b"forwarded"))]
        elif given and not forwarded:
            nodes = [f"for={forwarded_node(hop)}" for hop in given]
            nodes[0] += f";proto={client_scheme}"
            forwarded = ", ".join(nodes)
        hops = ", ".join((*filter(None, given), peer))
        if forwarded:
            elements = f"{forwarded}, {elements}"
        for claimed in (head.one(b"x-forwarded-host"), claimed_host.encode("latin-1")):
            if is_host(claimed):
                host = claimed
                break
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nForwarded: %b\r\n"
    ) % (hops.encode("latin-1"), client_scheme.encode("ascii"), host, elements.encode("latin-1"))
