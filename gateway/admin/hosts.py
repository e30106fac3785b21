"""The Host check of the admin listener, against DNS rebinding.

A web page that a browser on the same machine has open can give its own name the address
127.0.0.1, and then read what listens there as its own origin; its requests still carry that name
in Host. An address in Host is none that a page could have chosen.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.addresses import is_loopback_address
from gateway.admin.problems import ApiError
from gateway.http.errors import BadRequestError
from gateway.http.request_head import routing_host


def require_host(names: Callable[[], Collection[str]]) -> Middleware:
    """Middleware that rejects requests whose Host is not the listener's own, with 421.

    Its own are the `names`, which are asked for with each request, `localhost` and addresses, over
    loopback loopback's. Over other addresses nothing is rejected if there are no `names`.
    """

    @web.middleware
    async def require(request: web.Request, handler: Handler) -> web.StreamResponse:
        local = request.transport.get_extra_info("sockname") if request.transport else None
        if isinstance(local, tuple):  # no browser opens a Unix socket
            is_loopback = is_loopback_address(local[0])
            known = names()
            if is_loopback or known:
                for host in request.headers.getall("Host", []):
                    if not _is_own(host, known, is_loopback=is_loopback):
                        raise ApiError(
                            421,
                            "admin_host",
                            "The admin listener is not known by this name: add it to admin.hosts.",
                        )
        return await handler(request)

    return require


def _is_own(host: str, names: Collection[str], *, is_loopback: bool) -> bool:
    try:
        name = routing_host(host.encode("utf-8", "surrogateescape"))
    except BadRequestError:
        return False
    if name == "localhost" or name in names:
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or not is_loopback
