"""What passes from one side to the other: request and response heads.

Third step of the request path. An inbound head is read once (`read_request_head`), into
what the gateway needs to know and the fields that may pass. Nothing that a client sends
can reach the upstream under a name that the gateway speaks under: those names are
dropped in any spelling, on every route, before the gateway's own are written.

RFC 9110 sections 7.6.1 (Connection), 10.1.1 (Expect), RFC 7239 (Forwarded),
RFC 9112 section 6 (framing), W3C Trace Context.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import getrandbits
from urllib.parse import quote

from gateway.oauth.models import AccessToken
from gateway.proxy.problems import (
    BadRequestError,
    ExpectationFailedError,
    HeadTooLargeError,
    NotImplementedMethodError,
)

RawHeaders = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"alt-svc", b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip

LOCAL_PEER = "unix"
"""The address of a client on a unix socket."""

IDENTITY = frozenset({b"x-client-id", b"x-client-name", b"x-token-scopes"})

# By these, frameworks take another path, host or peer than the one we judged.
_OVERRIDES = frozenset(
    {
        b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-server", b"x-forwarded-uri",
        b"x-forwarded-method", b"x-forwarded-path", b"x-forwarded-scheme", b"x-forwarded-ssl",
        b"x-real-ip", b"x-original-url", b"x-original-uri", b"x-original-host",
        b"x-rewrite-url", b"x-host", b"x-envoy-original-path",
    }
)  # fmt: skip

_FORWARDING = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-request-id"}
)

# Fields that are read here and written anew, or not at all.
_INTERPRETED = frozenset(
    {b"authorization", b"content-length", b"expect", b"host", b"traceparent", b"tracestate"}
)

_SPECIAL = HOP_BY_HOP | IDENTITY | _OVERRIDES | _FORWARDING | _INTERPRETED

# A look-alike such as X_Client_Id becomes X-Client-Id in CGI-like environments.
_RESERVED = IDENTITY | _OVERRIDES | _FORWARDING

_CONNECTION_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade", b"te", b""})
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
_TRACEPARENT = re.compile(
    rb"(?!ff)(?:00|(?P<later>(?!00)[0-9a-f]{2}))-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}"
    rb"-[0-9a-f]{2}(?(later)(?:-.*)?)"
)
_TRACE_ID = re.compile(rb"(?!0{32})[0-9a-f]{32}")
_FORWARDED_PROTO = re.compile(rb"https?", re.IGNORECASE)


class RequestHead:
    """What an inbound head says, and the lines of it that may pass."""

    __slots__ = ("fields", "lines")

    def __init__(self, fields: dict[bytes, list[bytes]], lines: list[bytes]) -> None:
        self.fields = fields
        """Values by lower-case name, of the fields that the gateway reads itself."""
        self.lines = lines
        """The other fields as they came, each with its line end."""

    def all(self, name: bytes) -> Sequence[bytes]:
        """The values of a field, in order."""
        return self.fields.get(name, ())

    def one(self, name: bytes) -> bytes:
        """The value of a field that may be given once: empty where it is absent or repeated."""
        values = self.fields.get(name, ())
        return values[0] if len(values) == 1 else b""

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 Continue before it sends the body."""
        return b"expect" in self.fields

    @property
    def connection_options(self) -> frozenset[bytes]:
        """The lower-case members of Connection."""
        return split_list(b",".join(self.fields.get(b"connection", ())))


def read_request_head(headers: RawHeaders, *, max_bytes: int) -> RequestHead:
    """Read the fields of a request in one pass.

    Raises `HeadTooLargeError`, `ExpectationFailedError` and `NotImplementedMethodError`.
    """
    fields: dict[bytes, list[bytes]] = {}
    lines: list[bytes] = []
    size = 0
    for name, value in headers:
        size += len(name) + len(value) + 4
        lower = name.lower()
        if lower in _SPECIAL:
            fields.setdefault(lower, []).append(value)
        elif b"_" not in lower or lower.replace(b"_", b"-") not in _RESERVED:
            lines.append(b"%b: %b\r\n" % (name, value))
    if size > max_bytes:
        raise HeadTooLargeError("head_too_large", "The request head is too large.")
    head = RequestHead(fields, lines)
    if b"expect" in fields and head.one(b"expect").lower() != b"100-continue":
        raise ExpectationFailedError("expectation", "Only 100-continue can be expected.")
    if b"transfer-encoding" in fields and head.one(b"transfer-encoding").lower() != b"chunked":
        # A coding is a hop's own affair: passing the body on undecoded, without the field
        # that names its coding, would corrupt it.
        raise NotImplementedMethodError(
            "transfer_coding", "Only the chunked transfer coding is supported."
        )
    if b"connection" in fields:
        options = head.connection_options
        if not options <= _CONNECTION_OPTIONS:
            lines[:] = [line for line in lines if line.partition(b":")[0].lower() not in options]
    return head


def split_list(value: bytes) -> frozenset[bytes]:
    """The lower-case members of a comma-separated field value."""
    return frozenset(member.strip() for member in value.lower().split(b","))


def check_host(host: bytes) -> None:
    """Raises `BadRequestError` for a Host that is not `uri-host [":" port]`."""
    if not _HOST.fullmatch(host):
        raise BadRequestError("host", "The Host header is not valid.")


def routing_host(host: bytes) -> str:
    """A host as routes name it: lower-case, without port and trailing dot."""
    name = host.decode("ascii").lower()
    if not name.endswith("]"):
        name = name.rpartition(":")[0] or name
    return name.rstrip(".")


def render_identity(token: AccessToken) -> bytes:
    """The lines that tell the upstream who calls.

    The name may be any text; what is not visible ASCII is percent-encoded as UTF-8.
    """
    name = quote(token.client_name, safe=" !#$&'()*+,/:;=?@[]^`{|}~")
    lines = (
        f"X-Client-Id: {token.client_id}\r\n"
        f"X-Client-Name: {name}\r\n"
        f"X-Token-Scopes: {token.scope}\r\n"
    )
    return lines.encode("ascii")


def new_request_id(bits: Callable[[int], int] = getrandbits) -> bytes:
    """A request id that can serve as a trace id too: 32 hexadecimal digits.

    It only has to be unique, not secret, so it does not cost a system call.
    """
    return b"%032x" % bits(128)


def choose_request_id(head: RequestHead, *, trusted: bool) -> bytes:
    """The id of this request: that of a trusted proxy in front, else a new one."""
    if trusted and _REQUEST_ID.fullmatch(head.one(b"x-request-id")):
        return head.one(b"x-request-id")
    return new_request_id()


def render_trace(head: RequestHead, request_id: bytes) -> bytes:
    """The W3C trace context: the caller's if it is well-formed, else a new trace.

    A new trace says "sampled", as tracers do where nobody said anything; "not sampled"
    would switch off the tracing of every service behind the gateway.
    """
    traceparent = head.one(b"traceparent")
    if traceparent and _TRACEPARENT.fullmatch(traceparent):
        state = b"".join(b"tracestate: %b\r\n" % value for value in head.all(b"tracestate"))
        return b"traceparent: %b\r\n%b" % (traceparent, state)
    trace_id = request_id if _TRACE_ID.fullmatch(request_id) else new_request_id()
    return b"traceparent: 00-%b-%b-01\r\n" % (trace_id, new_request_id()[:16])


def render_forwarding(
    head: RequestHead, *, host: bytes, peer: str, scheme: bytes, trusted: bool
) -> bytes:
    """X-Forwarded-For, -Proto and -Host, and Forwarded (RFC 7239).

    What the peer claims is kept only if it is a trusted proxy.
    """
    address = peer.encode("ascii")
    node = b'"[%b]"' % address if b":" in address else address
    if peer == LOCAL_PEER:
        node = b"unknown"
    element = b'for=%b;host="%b";proto=%b' % (node, host, scheme)
    if trusted:
        address = b", ".join((*head.all(b"x-forwarded-for"), address))
        element = b", ".join((*head.all(b"forwarded"), element))
        claimed_proto = head.one(b"x-forwarded-proto")
        if _FORWARDED_PROTO.fullmatch(claimed_proto):
            scheme = claimed_proto.lower()
        claimed_host = head.one(b"x-forwarded-host")
        if _HOST.fullmatch(claimed_host):
            host = claimed_host
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"
        b"Forwarded: %b\r\n" % (address, scheme, host, element)
    )
