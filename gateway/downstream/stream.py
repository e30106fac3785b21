"""The seam between the pipeline and the clients' protocols: one request, and the way to respond to
it.

The seam between the request path and the protocols of clients. HTTP/1 connections implement
`ClientStream` themselves, one request after the other. Nothing behind it knows a version.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.addresses import UNKNOWN_PEER, plain_address
from gateway.downstream.h2_limits import H2Settings
from gateway.downstream.request import Peer, Request
from gateway.downstream.turns import Turns
from gateway.http.errors import ProblemError
from gateway.http.fields import Trailers
from gateway.http.response_head import ResponseHead
from gateway.metrics.counts import H2Counts


class BodySink(Protocol):
    """Receives the body of a request, piece by piece, in order."""

    def take(self, piece: bytes) -> None:
        """A piece, framing removed."""

    def end_of_body(self, trailers: Trailers = ()) -> None:
        """The body is complete."""

    def body_failed(self, error: ProblemError) -> None:
        """The body will not be complete."""


class StreamOwner(Protocol):
    """Makes the response of a stream; receives its flow control, and when the client leaves."""

    def pause(self) -> None:
        """The client takes no more for now."""

    def resume(self) -> None:
        """The client takes bytes again."""

    def client_gone(self) -> None:
        """The client went away; nothing can be sent any more."""


class ClientStream:
    """One request of a client. A class, not a protocol, so that calls of it are compiled.

    Its response is `respond`, with the whole body; or `respond` without one, then `send` and
    `flush` as often as pieces come, then `end`. Until the first `flush`, nothing was sent, and
    another `respond` takes the place of the first. `release` comes last, in every case.
    """

    __slots__ = ("owner",)

    owner: StreamOwner | None

    @abstractmethod
    def read_body(self, sink: BodySink) -> None:
        """Give the body of the request to `sink`, from its first byte on. A client that waits
        for it receives 100 (RFC 9110 section 15.2.1)."""

    @abstractmethod
    def pause_body(self) -> None:
        """Take no more of the body from the client until `resume_body`."""

    @abstractmethod
    def resume_body(self) -> None:
        """Take the body again."""

    @abstractmethod
    def inform(self, head: ResponseHead) -> None:
        """Send an interim response (1xx) other than 100 and 101."""

    @abstractmethod
    def respond(self, head: ResponseHead, body: bytes | None, *, closes: bool = False) -> None:
        """Send a response, whole; or its head only, where `body` is None. With `closes`, the
        connection can't be used afterwards."""

    @abstractmethod
    def send(self, piece: bytes) -> None:
        """Send a piece of the body with the next `flush`, or `end`."""

    @abstractmethod
    def flush(self) -> None:
        """Send what was not sent yet, in one write."""

    @abstractmethod
    def end(self, trailers: Trailers = ()) -> None:
        """The body of the response is complete. A client that can't take trailers does not
        receive them (RFC 9110 section 6.5.1)."""

    @abstractmethod
    def reset(self) -> None:
        """Break the response off, so that it can't be taken for a whole one."""

    @abstractmethod
    def upgrade(self, head: ResponseHead, sink: BodySink) -> None:
        """Switch protocols: give what comes from now on, or has come, to `sink`, and send what
        is sent as it is."""

    @abstractmethod
    def release(self) -> None:
        """The exchange is over and accounted for: the connection may serve another one."""


class DiscardingStream(ClientStream):
    """A stream whose client does not exist: it takes every response and sends none."""

    def __init__(self) -> None:
        # Set here: mypyc makes no default of what a base declares.
        self.owner: StreamOwner | None = None

    def read_body(self, sink: BodySink) -> None:
        """There is none."""
        sink.end_of_body()

    def pause_body(self) -> None:
        """Nothing comes."""

    def resume_body(self) -> None:
        """Nothing comes."""

    def inform(self, head: ResponseHead) -> None:
        """Dropped, as the others."""

    def respond(self, head: ResponseHead, body: bytes | None, *, closes: bool = False) -> None:
        """Dropped."""

    def send(self, piece: bytes) -> None:
        """Dropped."""

    def flush(self) -> None:
        """Nothing is kept."""

    def end(self, trailers: Trailers = ()) -> None:
        """Nothing is kept."""

    def reset(self) -> None:
        """There is no connection."""

    def upgrade(self, head: ResponseHead, sink: BodySink) -> None:
        """Never asked for: the request does not ask for it."""

    def release(self) -> None:
        """There is no connection."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Limits of one client, and of all together."""

    max_connections: int
    max_per_source: int
    """Of one address, or one IPv6 /64; 0 is no limit."""
    head_timeout_s: float
    """From the first byte of a head to its last."""
    body_timeout_s: float
    """The longest pause within a body, in either direction."""
    keepalive_timeout_s: float
    half_close_timeout_s: float
    """How long nothing may be sent to a client that has closed its side; 0 ends it then."""
    head_bytes: int
    headers: int
    min_body_rate: int
    """Bytes a second of a request's body, on the average of `body_timeout_s`; 0 is no limit."""

    def body_due(self, now: float, due: float, received: int) -> float:
        """When more of a body must have come, `received` bytes having come; `due` is what this was
        before, or 0.

        A bucket of time: it holds `body_timeout_s`, drains while we wait for the client, and
        each byte fills it as the lowest rate says. So neither a pause may last longer, nor may
        a byte now and then hold a connection for good.
        """
        latest = now + self.body_timeout_s
        if self.min_body_rate and due:
            return min(latest, due + received / self.min_body_rate)
        return latest


class Connection(Protocol):
    """A client's connection, whatever its protocol."""

    transport: asyncio.Transport | None
    peer: Peer

    def reconfigure(self) -> None:
        """Apply the rules that the owner has now."""

    def drain(self) -> None:
        """Ask the client to use another connection, as far as its protocol can."""

    def reject(self) -> None:
        """Close it, unread: there are too many."""

    def reset(self) -> None:
        """Close it now, whatever is in flight on it."""


class ConnectionOwner:
    """State that the connections of a listener share: their rules, and the handler of their
    requests."""

    def __init__(
        self, handle: Callable[[ClientStream, Request], None], limits: ClientLimits
    ) -> None:
        self.handle = handle
        """Responds to a request, now or later. Raises nothing."""
        self.limits = limits
        self.http2: H2Settings | None = None
        """Of connections that speak HTTP/2; None where none may."""
        self.h2_counts = H2Counts()
        self.turns = Turns()
        self.is_draining = False
        """While true, every response asks the client to close its connection."""

    @abstractmethod
    def identify(self, address: str, *, scheme: str, certificate: bytes | None) -> Peer:
        """The peer at an address, by the rules that hold now."""

    def identify_peer(self, transport: asyncio.BaseTransport, address: str) -> Peer:
        """The peer of a transport. `address` is known already on a Unix socket, or from a load
        balancer (the PROXY protocol); else it is empty."""
        if not address:
            # Who has left already has no name, and must not be taken for a local peer.
            peername = transport.get_extra_info("peername")
            address = plain_address(str(peername[0])) if peername else UNKNOWN_PEER
        scheme, certificate = "http", None
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            scheme, certificate = "https", tls.getpeercert(binary_form=True)
        return self.identify(address, scheme=scheme, certificate=certificate)

    @abstractmethod
    def opened(self, connection: Connection) -> None:
        """A client has connected."""

    @abstractmethod
    def replaced(self, connection: Connection, successor: Connection) -> None:
        """A connection speaks another protocol from here on."""

    @abstractmethod
    def lost(self, connection: Connection) -> None:
        """A connection has ended."""
