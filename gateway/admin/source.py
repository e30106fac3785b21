"""Where a request to the admin listener came from."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from gateway.addresses import Networks, find_client, plain_address

Source = Callable[[web.Request], str]


def source_behind(trusted_proxies: Networks) -> Source:
    """Tells the address of the client, as far as it can be trusted: that of the peer or, where
    the peer is a trusted proxy, what it says."""

    def source(request: web.Request) -> str:
        def values(name: str) -> list[bytes]:
            given = request.headers.getall(name, [])
            return [value.encode("utf-8", "surrogateescape") for value in given]

        peer = plain_address(request.remote or "")
        return find_client(
            peer,
            trusted_proxies,
            forwarded_for=values("X-Forwarded-For"),
            forwarded_proto=values("X-Forwarded-Proto"),
            forwarded=values("Forwarded"),
        ).address

    return source
