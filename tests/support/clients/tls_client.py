"""Raw requests over TLS, with or without a certificate of the client."""

from __future__ import annotations

import asyncio
import ssl

from support.deadlines import within
from support.jose_values import Certificate
from support.running_gateway import RunningGateway


async def fetch_over_tls(
    gateway: RunningGateway, ca: Certificate, request: bytes, certificate: Certificate | None
) -> bytes:
    """The response to a request that closes its connection."""
    context = ssl.create_default_context(cafile=str(ca.cert))
    if certificate is not None:
        context.load_cert_chain(certificate.cert, certificate.key)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", gateway.port, ssl=context, server_hostname="localhost"
    )
    try:
        writer.write(request)
        await writer.drain()
        async with within():
            return await reader.read()
    finally:
        writer.transport.abort()


def token_request(client_id: str | None = None) -> bytes:
    """A request for a token, of a client that its certificate or `client_id` names."""
    named = "" if client_id is None else f"&client_id={client_id}"
    body = f"grant_type=client_credentials{named}".encode()
    return (
        b"POST /token HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%b"
    ) % (len(body), body)
