"""One request of a client: a value, complete and unambiguous before the pipeline sees it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import getrandbits
from typing import Final
from urllib.parse import parse_qsl

from gateway.addresses import LOCAL_PEER, ClientOrigin, Networks, find_client
from gateway.codec import new_id
from gateway.http.errors import BadRequestError, NotImplementedMethodError, ProblemError
from gateway.http.fields import RawHeaders
from gateway.http.request_head import RequestHead, RequestLine, routing_host
from gateway.http.target import RequestTarget
from gateway.oauth.access import CachedToken
from gateway.oauth.binding.certificates import read_certificate_header

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
_TRACE_ID = re.compile(rb"(?!0{32})[0-9a-f]{32}")
NO_HEAD: Final = RequestHead(b"", {}, b"")
NO_LINE: Final = RequestLine("-", RequestTarget("", ""), is_http_10=False, onward=b"")
NO_NETWORKS = Networks()
_new_id: Final = new_id  # compiled, a name that is imported is looked up for each request
MAX_QUERY_PARAMETERS = 1000
"""Parameters of a query that conditions are matched against."""


class Peer:
    """The other end of a connection, and what is kept of it between its requests."""

    __slots__ = (
        "address", "bearer", "certificate", "certificate_header", "forwarding", "is_trusted",
        "protocol", "scheme", "trusted_proxies",
    )  # fmt: skip

    def __init__(
        self,
        address: str,
        *,
        scheme: str = "http",
        certificate: bytes | None = None,
        trusted_proxies: Networks = NO_NETWORKS,
        certificate_header: bytes = b"",
    ) -> None:
        self.address = address
        """Its IP address, or `LOCAL_PEER`."""
        self.scheme = scheme
        """`http` or `https`, of the connection."""
        self.certificate = certificate
        """The certificate (DER) that it proved to hold in the TLS handshake."""
        self.trusted_proxies = trusted_proxies
        self.is_trusted = address in trusted_proxies
        """Whether it is a proxy that is believed what it says of its clients."""
        self.certificate_header = certificate_header
        """Where a trusted proxy writes the client's certificate; lower-case, or empty."""
        self.protocol = "HTTP/1.1"
        """What the connection speaks; a request of HTTP/1.0 says so itself."""
        # Clients mostly send the same in every request on a connection.
        self.bearer: tuple[bytes, CachedToken] | None = None
        """The Authorization value that came last, and the token that it was."""
        self.forwarding: tuple[bytes, bytes] | None = None
        """The fields that describe this connection to the upstream, by the host that they name."""

    @property
    def is_local(self) -> bool:
        """Whether it connected to a Unix socket."""
        return self.address == LOCAL_PEER


class Request:
    """An unambiguous, immutable request.

    Where what came has none, `error` says why, and what could not be read is empty.
    """

    # Not slots: nothing but `__init__` sets an attribute, and it sets all of them but one.
    _parameters: dict[str, list[str]] | None = None
    """Of the query, once they were asked for."""

    def __init__(
        self,
        line: RequestLine,
        head: RequestHead,
        peer: Peer,
        error: ProblemError | None = None,
        *,
        checked_by: Request | None = None,
        host: tuple[bytes, str] | None = None,
    ) -> None:
        """`checked_by` is the authorization check that describes the request; then `host` is
        what it says of its host."""
        target, method = line.target, line.method
        self.line: Final = line
        self.method: Final = method
        self.target: Final = target
        self.head: Final = head
        self.peer: Final = peer
        self.is_http_10: Final = line.is_http_10
        self.is_websocket: Final = head.wants_websocket and method == "GET" and not line.is_http_10
        client, scheme, forwarded_host = peer.address, peer.scheme, ""
        if checked_by is None:
            host = head.host
            # It only has to be unique, not secret, so it costs no system call.
            request_id = trace_id = _new_id() or b"%032x" % getrandbits(128)
            if peer.is_trusted:
                origin = _origin(head, peer)
                client, scheme = origin.address, origin.scheme or scheme
                forwarded_host = origin.host
                request_id, trace_id = _given_id(head, request_id)
            if error is None and (host is None or line.is_http_10 or method == "CONNECT"):
                error = _find_fault(line, head)
        else:
            client, scheme = checked_by.client, checked_by.scheme
            request_id, trace_id = checked_by.request_id, checked_by.trace_id
            forwarded_host = checked_by.forwarded_host
        if target.authority is not None and error is None:
            host, error = _read_authority(target.authority)
        self.client: Final[str] = client
        """Address of the client, as far as it can be trusted."""
        self.scheme: Final[str] = scheme
        """`http` or `https`: how the client called us, or the trusted proxy in front."""
        self.forwarded_host: Final[str] = forwarded_host
        """The host that the client called, as a trusted proxy says in `Forwarded`."""
        self.request_id: Final[bytes] = request_id
        self.trace_id: Final[bytes] = trace_id
        if host is None or error is not None:
            host = b"", ""
        self.host: Final[bytes] = host[0]
        """As received; empty for HTTP/1.0 without one."""
        self.routing_host: Final[str] = host[1]
        """As routes name it: lower-case, without port and trailing dot."""
        self.error: Final = error
        """Why it can't be served, if so."""

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target.path}>"

    @property
    def protocol(self) -> str:
        """The protocol that it came by, as access logs name it."""
        return "HTTP/1.0" if self.is_http_10 else self.peer.protocol

    # What a token that is bound to its sender needs to know (`RequestEvidence`).

    @property
    def path(self) -> str:
        """Its canonical path."""
        return self.target.path

    @property
    def raw_headers(self) -> RawHeaders:
        """Its fields as they came."""
        return self.head.raw_fields()

    def header_values(self, name: bytes) -> Sequence[bytes]:
        """The values of a field as they came, in order; `name` is lower-case."""
        return self.head.values(name)

    def query_values(self, name: str) -> Sequence[str]:
        """The values of a parameter of the query, percent-decoded, in order.

        Raises `BadRequestError` for more than `MAX_QUERY_PARAMETERS`: of those that are not looked
        at, one could be what a condition forbids.
        """
        parameters = self._parameters
        if parameters is None:
            query = self.target.query[1:]
            if query.count("&") >= MAX_QUERY_PARAMETERS:
                raise BadRequestError(
                    "query_parameters",
                    f"The query has more than {MAX_QUERY_PARAMETERS} parameters.",
                )
            parameters = self._parameters = {}
            for given, value in parse_qsl(query, keep_blank_values=True):
                parameters.setdefault(given, []).append(value)
        return parameters.get(name, ())

    @property
    def certificate(self) -> bytes | None:
        """The certificate (DER) that the client proved to hold: in the handshake with us, or with
        the trusted proxy in front, which says so in a field."""
        peer = self.peer
        if peer.certificate_header and peer.is_trusted:
            # The certificate of this connection would be the proxy's own.
            values = self.head.values(peer.certificate_header)
            return read_certificate_header(values[0]) if len(values) == 1 else None
        return peer.certificate


def _given_id(head: RequestHead, own: bytes) -> tuple[bytes, bytes]:
    """The request's id and its trace's, as a trusted proxy gives them if they can't break a
    log; else our own."""
    given = head.one(b"x-request-id")
    if not _REQUEST_ID.fullmatch(given):
        return own, own
    return given, given if _TRACE_ID.fullmatch(given) else own


def _find_fault(line: RequestLine, head: RequestHead) -> ProblemError | None:
    if line.method == "CONNECT":
        return NotImplementedMethodError("connect", "This gateway is not a forward proxy.")
    if line.is_http_10 and head.is_chunked:
        return BadRequestError("framing", "HTTP/1.0 has no chunks.")
    if head.host is None and not line.is_http_10:
        # Also where the target names an authority (RFC 9112 section 3.2).
        return BadRequestError("host", "The request has no Host header.")
    return None


def _read_authority(authority: str) -> tuple[tuple[bytes, str] | None, ProblemError | None]:
    host = authority.encode("ascii")
    try:
        return (host, routing_host(host)), None
    except BadRequestError as error:
        return None, error


def _origin(head: RequestHead, peer: Peer) -> ClientOrigin:
    return find_client(
        peer.address,
        peer.trusted_proxies,
        forwarded_for=head.all(b"x-forwarded-for"),
        forwarded_proto=head.all(b"x-forwarded-proto"),
        forwarded=head.all(b"forwarded"),
    )
