"""Where a request to the admin listener came from."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from aiohttp import web

from gateway.addresses import plain_address
from gateway.downstream.connections import Network
from gateway.downstream.request import client_address

Source = Callable[[web.Request], str]


def source_behind(trusted_proxies: tuple[Network, ...]) -> Source:
    """Tells the address of the client, as far as it can be trusted: that of the peer or, where
    the peer is a trusted proxy, what it says."""

    def is_trusted(peer: str) -> bool:
        if not trusted_proxies:
            return False
        try:
            address = ip_address(peer)
        except ValueError:  # not connected by IP
            return False
        return any(address in network for network in trusted_proxies)

    def source(request: web.Request) -> str:
        peer = plain_address(request.remote or "")
        if not is_trusted(peer):
            return peer
        fields = request.headers.getall("X-Forwarded-For", [])
        given = [field.encode("utf-8", "surrogateescape") for field in fields]
        return client_address(peer, given, is_trusted)

    return source
