"""Header fields: how a line of them is read, and whose business each name is.

A line is read strictly, and once: the same few lines come with nearly every message, so
what became of a line is kept (`KnownLines`) and looked up when it comes again.

RFC 9112 section 5 (field syntax), RFC 9110 sections 5.5 (values), 7.6.1 (Connection).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence

Field = tuple[bytes, bytes]
"""Name and value; the white space around the value is no part of it."""
RawHeaders = Sequence[Field]
"""All fields of a message, as they came."""
Trailers = tuple[Field, ...]
"""Fields behind a body; names in lower case."""

HOP_BY_HOP = frozenset(
    {
        b"alt-svc", b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip

IDENTITY = frozenset({b"x-client-id", b"x-client-name", b"x-token-scopes", b"x-token-subject"})

FORWARDING = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-request-id"}
)

METHOD_OVERRIDES = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override"})

OVERRIDES = METHOD_OVERRIDES | frozenset(
    {
        b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-server", b"x-forwarded-uri",
        b"x-forwarded-method", b"x-forwarded-path", b"x-forwarded-scheme", b"x-forwarded-ssl",
        b"x-real-ip", b"x-original-url", b"x-original-uri", b"x-original-host",
        b"x-original-method", b"x-rewrite-url", b"x-host", b"x-envoy-original-path",
        b"client-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip",
        b"proxy-client-ip", b"wl-proxy-client-ip", b"x-forwarded", b"forwarded-for",
        b"proxy",
    }
)  # fmt: skip
"""By these, frameworks take another method, path, host or peer than the one we authorized. `Proxy`
is HTTP_PROXY to CGI programs, and has them send what they ask of others there (httpoxy)."""

OWN_COOKIES = frozenset(
    {
        b"gateway_session", b"gateway_sign_in", b"gateway_console",
        b"__Host-gateway_session", b"__Host-gateway_sign_in", b"__Host-gateway_console",
    }
)  # fmt: skip
"""Cookies of the sign-in pages (`oauth/endpoints/authorize`) and of the console, whose port does
not keep them apart (RFC 6265 section 8.5): no application's business, neither to read nor to set,
though it is on the same host."""

CONNECTION_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade", b"te", b""})
"""Members of Connection that name no field which would pass otherwise."""

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""RFC 9110 section 5.6.2, as a pattern."""

_FIELD = re.compile(rb"(%b):[ \t]*([\t -~\x80-\xff]*)" % TOKEN)

MAX_KNOWN_LINES = 2048
MAX_KNOWN_LINE_BYTES = 256
# Credentials are not kept for longer than they are needed; the others never come again.
_NEVER_KEPT: set[bytes] = {
    b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-api-key", b"dpop",
    b"client_secret", b"grpc-timeout", b"sec-websocket-key", b"sec-websocket-accept",
    b"traceparent", b"tracestate", b"x-request-id", b"x-correlation-id", b"etag",
}  # fmt: skip


def never_keep(name: bytes) -> None:
    """Have no line of a field with credentials be kept beyond its connection. `name` is in lower
    case."""
    _NEVER_KEPT.add(name)


class FieldSyntaxError(ValueError):
    """A line that is no header field. Says nothing of what is in it, which may be a secret."""


def parse_field(line: bytes) -> Field:
    """Read one line, its end removed.

    Raises `FieldSyntaxError`: also for a folded line, white space before the colon, and
    any control character, a bare CR or LF among them.
    """
    field = _FIELD.fullmatch(line)
    if field is None:
        raise FieldSyntaxError
    return field[1], field[2].rstrip(b" \t")


def cgi_name(name: bytes) -> bytes:
    """A lower-case name as CGI-like environments take it, which know letters, digits and one
    other character: `x_client.id` is `x-client-id` there."""
    return name.translate(_CGI_NAMES)


_NEVER_TRAILERS = HOP_BY_HOP | IDENTITY | FORWARDING | OVERRIDES | frozenset(
    {
        b"age", b"authorization", b"cache-control", b"clear-site-data", b"content-encoding",
        b"content-length", b"content-range", b"content-type", b"cookie", b"date", b"dpop",
        b"expect", b"expires", b"grpc-timeout", b"host", b"if-match", b"if-modified-since",
        b"if-none-match", b"if-range", b"if-unmodified-since", b"location", b"max-forwards",
        b"pragma", b"range", b"retry-after", b"service-worker-allowed", b"set-cookie",
        b"traceparent", b"tracestate", b"vary", b"warning",
    }
)  # fmt: skip
_CGI_NAMES = bytes(
    code if chr(code).isascii() and chr(code).isalnum() else 0x2D for code in range(256)
)


def header_values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """The values of a field, in order; `name` is lower-case."""
    return [value for key, value in headers if key.lower() == name]


_PROTOCOL = re.compile(rb"%b(?:/%b)?" % (TOKEN, TOKEN))


def one_protocol(upgrade: Sequence[bytes]) -> bytes:
    """Return the protocol that Upgrade names (RFC 9110 section 7.8); empty for none or several."""
    value = upgrade[0].strip() if len(upgrade) == 1 else b""
    return value if _PROTOCOL.fullmatch(value) else b""


def split_list(value: bytes) -> frozenset[bytes]:
    """The lower-case members of a comma-separated field value."""
    return frozenset(member.strip() for member in value.lower().split(b","))


def without_fields(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """The lines but those of the fields named, in lower case."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]


def passing_trailers(trailers: Trailers) -> Trailers:
    """The trailers that may pass: none that frames, routes or authenticates a message, or says
    what only its head may say (RFC 9110 section 6.5.1). Names are in lower case."""
    if not trailers:
        return trailers
    return tuple(
        field
        for field in trailers
        if field[0] not in _NEVER_TRAILERS and cgi_name(field[0]) not in _NEVER_TRAILERS
    )


def without_own_cookies(cookies: bytes) -> bytes:
    """The value of a Cookie field but for our own; empty where nothing is left."""
    kept = [
        pair for pair in cookies.split(b";") if pair.partition(b"=")[0].strip() not in OWN_COOKIES
    ]
    return b";".join(kept).strip()


def set_cookie_name(value: bytes) -> bytes:
    """Return the name of the cookie in a Set-Cookie value. Of one without a name,
    browsers send its value alone, and that may look like another one's name and value (RFC 6265bis
    section 5.7)."""
    name, _, rest = value.partition(b";")[0].partition(b"=")
    return (name.strip() or rest.partition(b"=")[0]).strip()


class KnownLines(dict[bytes, Field]):
    """Classifies field lines, by the line: `known[line]`.

    A line not seen before is read by `classify`; it is kept unless it is long, may hold a
    credential, or won't come again. Where there are too many, all are forgotten and learned
    again, so that clients cannot fill the memory by making lines up.

    `known[line]` raises `FieldSyntaxError`.
    """

    def __missing__(self, line: bytes) -> Field:
        name, value = parse_field(line)
        lower = name.lower()
        known = self.classify(lower, name, value)
        if len(line) <= MAX_KNOWN_LINE_BYTES and lower not in _NEVER_KEPT:
            if len(self) >= MAX_KNOWN_LINES:
                self.clear()
            self[line] = known
        return known

    @abstractmethod
    def classify(self, lower: bytes, name: bytes, value: bytes) -> Field:
        """For a field that has to be looked at: its lower-case name and its value. For one
        that only passes: no name, and the line to write. For one that is dropped: nothing."""
