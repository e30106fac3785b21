"""What an exchange knows of its client: a request, its body, and the way to answer it."""

from __future__ import annotations

from typing import Protocol, TypeVar

from gateway.downstream.request import BodySink, StreamOwner
from gateway.http.errors import Headers
from gateway.http.request_head import RequestHead
from gateway.proxy.response_filter import ResponseFilter
from gateway.proxy.tunnel import Tunnel, TunnelClient


class ClientStream(TunnelClient, Protocol):
    """What an exchange knows of the request and the client's connection, which calls it as
    a `StreamOwner`."""

    is_http_10: bool
    is_websocket: bool
    """Whether it asks for a WebSocket."""
    extra_fields: Headers
    """For the head of the response."""
    keep_alive: bool
    """Whether the connection can serve another request after this one."""
    owner: StreamOwner | None
    response_filter: ResponseFilter | None
    """What becomes of the response on its way."""

    @property
    def method(self) -> str:
        """The request's method."""

    @property
    def head(self) -> RequestHead:
        """The request's fields."""

    @property
    def request_id(self) -> bytes:
        """The id that the response is to carry."""

    def settle_keep_alive(self) -> bool:
        """Decide on `keep_alive`, for the head that tells it."""

    def read_body(self, sink: BodySink) -> None:
        """Let the body go to `sink`."""

    def switch_to(self, tunnel: Tunnel) -> None:
        """Hand every byte that comes from now on to the tunnel."""


Client = TypeVar("Client", bound=ClientStream)
