"""Heads of requests as HTTP/2 writes them (RFC 9113 section 8.3.1)."""

from __future__ import annotations

from gateway.http.fields import Field, KnownLines
from gateway.http.h2 import Fields
from gateway.upstream.stream import UpstreamRequestHead

_TRAILERS: Field = (b"te", b"trailers")


class _H2Lines(KnownLines):
    def classify(self, lower: bytes, name: bytes, value: bytes) -> Field:
        return lower, value


_KNOWN_LINES = _H2Lines()


def render_request_fields(head: UpstreamRequestHead, *, scheme: bytes) -> Fields:
    """The fields of a request. It says that we take trailers, which gRPC asks for."""
    method, target, _ = head.request_line.split(b" ", 2)
    fields: list[Field] = [
        (b":method", method),
        (b":scheme", scheme),
        (b":authority", head.authority),
        (b":path", target),
    ]
    known = _KNOWN_LINES
    for line in head.lines.split(b"\r\n"):
        if line:
            fields.append(known[line])
    if head.length >= 0:
        fields.append((b"content-length", b"%d" % head.length))
    fields.append(_TRAILERS)
    return tuple(fields)
