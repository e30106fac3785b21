"""Gateways that get certificates, and what their clients see."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from support.processes.pebble import Pebble
from support.running_gateway import RunningGateway

NAME = "api.gateway.test"
OTHER_NAME = "shop.gateway.test"

StartWithAcme = Callable[..., Awaitable[RunningGateway]]


async def served_certificate(
    pebble: Pebble, name: str | None, host: str = "127.0.0.1", trusted: bytes | None = None
) -> dict[str, Any]:
    """The certificate that a client of a name gets, verified with the CA's root."""
    root = trusted if trusted is not None else await asyncio.to_thread(pebble.issuing_ca)
    context = ssl.create_default_context(cadata=root.decode())
    if name is None:
        context.check_hostname = False
    _, writer = await asyncio.open_connection(
        host, pebble.https_port, ssl=context, server_hostname=name
    )
    found: dict[str, Any] = writer.get_extra_info("peercert")
    writer.close()
    return found
