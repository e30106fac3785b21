"""The head of an answer and the framing of its body, as the client gets them.

RFC 9112 section 6: framing belongs to a connection, so it is decided anew for the
client's. RFC 9110 section 7.6.1: what belongs to the upstream's connection stays there.
"""

from __future__ import annotations

from enum import Enum

from gateway.proxy.headers import HOP_BY_HOP, RawHeaders, split_list
from gateway.proxy.problems import REASON_PHRASES, UpstreamProtocolError

LAST_CHUNK = b"0\r\n\r\n"

BODILESS = frozenset({204, 304})
"""Final statuses whose answers have no body (RFC 9110 section 6.4.1)."""

_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, REASON_PHRASES.get(status, "").encode())
    for status in range(100, 600)
}
# The request id is the gateway's to tell; an echo of it would stand there twice.
_DROPPED = HOP_BY_HOP | {b"x-request-id"}
_CONNECTION_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade", b""})


class Framing(Enum):
    """How the client knows where the body ends."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    """By the end of the connection: all that HTTP/1.0 has where the length is unknown."""


def render_chunk(piece: bytes) -> bytes:
    """One chunk (RFC 9112 section 7.1). `piece` is not empty: that would be the last one."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def render_head(
    status: int,
    headers: RawHeaders,
    *,
    has_body: bool,
    is_http_10: bool,
    keep_alive: bool,
    request_id: bytes,
) -> tuple[bytes, Framing]:
    """The head for the client, and the framing that it announces.

    Raises `UpstreamProtocolError` for a status that HTTP does not have.
    """
    status_line = _STATUS_LINES.get(status)
    if status_line is None:
        raise UpstreamProtocolError("upstream_protocol", "The upstream's status is not valid.")
    lines = [status_line]
    has_length = _pass_lines(lines, headers, drops_length=status == 204)
    framing = Framing.LENGTH
    if has_body and not has_length:
        if is_http_10:
            framing, keep_alive = Framing.CLOSE, False
        else:
            framing = Framing.CHUNKED
            lines.append(b"Transfer-Encoding: chunked\r\n")
    if not keep_alive:
        lines.append(b"Connection: close\r\n")
    elif is_http_10:
        lines.append(b"Connection: keep-alive\r\n")
    lines.append(b"X-Request-Id: %b\r\n\r\n" % request_id)
    return b"".join(lines), framing


def render_interim_head(status: int, headers: RawHeaders) -> bytes:
    """A 1xx head for the client; it has no body (RFC 9110 section 15.2)."""
    lines = [_STATUS_LINES[status]]
    _pass_lines(lines, headers, drops_length=True)
    lines.append(b"\r\n")
    return b"".join(lines)


def render_switch_head(headers: RawHeaders, request_id: bytes) -> bytes:
    """The 101 head of a WebSocket (RFC 6455 section 4.2.2) for the client."""
    lines = [_STATUS_LINES[101], b"Upgrade: websocket\r\nConnection: Upgrade\r\n"]
    _pass_lines(lines, headers, drops_length=True)
    lines.append(b"X-Request-Id: %b\r\n\r\n" % request_id)
    return b"".join(lines)


def is_websocket_accepted(headers: RawHeaders) -> bool:
    """Whether a 101 head switches to a WebSocket and to nothing else."""
    upgrades = [value.lower() for name, value in headers if name.lower() == b"upgrade"]
    return upgrades == [b"websocket"]


def _pass_lines(lines: list[bytes], headers: RawHeaders, *, drops_length: bool) -> bool:
    """Append the lines that may pass; returns whether Content-Length is among them."""
    has_length = False
    options: frozenset[bytes] = frozenset()
    first = len(lines)
    for name, value in headers:
        lower = name.lower()
        if lower in _DROPPED:
            if lower == b"connection":
                options |= split_list(value)
            continue
        if lower == b"content-length":
            if drops_length:
                continue
            has_length = True
        lines.append(b"%b: %b\r\n" % (name, value))
    if not options <= _CONNECTION_OPTIONS:
        options -= {b"content-length"}
        lines[first:] = [
            line for line in lines[first:] if line.partition(b":")[0].lower() not in options
        ]
    return has_length
