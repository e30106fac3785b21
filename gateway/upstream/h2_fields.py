"""Heads of requests as HTTP/2 writes them (RFC 9113 section 8.3.1)."""

from __future__ import annotations

from gateway.http.fields import Field
from gateway.http.h2 import Fields
from gateway.http.h2_fields import FieldLister
from gateway.upstream.stream import UpstreamRequestHead

_TRAILERS: Field = (b"te", b"trailers")
_LISTER = FieldLister()


def render_request_fields(head: UpstreamRequestHead, *, scheme: bytes) -> Fields:
    """The fields of a request. It says that we take trailers, which gRPC asks for."""
    method, target, _ = head.request_line.split(b" ", 2)
    first: Fields = (
        (b":method", method),
        (b":scheme", scheme),
        (b":authority", head.authority),
        (b":path", target),
    )
    last: Fields = (_TRAILERS,)
    if head.length >= 0:
        last = ((b"content-length", b"%d" % head.length), _TRAILERS)
    return _LISTER.list_fields(first, head.lines, last)
