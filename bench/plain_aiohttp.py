"""The proxy that people write on an afternoon: an aiohttp Application and a ClientSession.

A token is checked once a minute by asking an endpoint; in between, a dict knows. It
streams, runs on uvloop and writes no access log, which is to its advantage; it has no
limits, metrics and header hygiene beyond the least.

    python -m bench.plain_aiohttp PORT ORIGIN AUTH [CERTIFICATE]
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time

import aiohttp
import uvloop
from aiohttp import web

VERDICT_TTL_S = 60.0
HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
SMALL = 64 * 1024


class PlainProxy:
    """Checks the token and forwards the request."""

    def __init__(self, session: aiohttp.ClientSession, origin: str, auth: str) -> None:
        self._session = session
        self._origin = f"http://{origin}"
        self._auth = f"http://{auth}/auth"
        self._good_until: dict[str, float] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        authorization = request.headers.get("Authorization", "")
        if not await self._is_good(authorization):
            return web.json_response({"error": "invalid_token"}, status=401)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in HOP_BY_HOP and name != "Authorization"
        }
        headers["X-Forwarded-For"] = request.remote or ""
        async with self._session.request(
            request.method,
            self._origin + request.raw_path,
            headers=headers,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as received:
            kept = {
                name: value
                for name, value in received.headers.items()
                if name.lower() not in HOP_BY_HOP
            }
            if received.content_length is not None and received.content_length <= SMALL:
                body = await received.read()
                return web.Response(status=received.status, headers=kept, body=body)
            response = web.StreamResponse(status=received.status, headers=kept)
            await response.prepare(request)
            async for piece in received.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    async def _is_good(self, authorization: str) -> bool:
        now = time.monotonic()
        if self._good_until.get(authorization, 0.0) > now:
            return True
        async with self._session.get(
            self._auth, headers={"Authorization": authorization} if authorization else {}
        ) as received:
            is_good = received.status == web.HTTPOk.status_code
        if is_good:
            self._good_until[authorization] = now + VERDICT_TTL_S
        return is_good


async def serve(port: int, origin: str, auth: str, certificate: str = "") -> None:
    """Until it is killed; over TLS with the directory of a certificate."""
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(f"{certificate}/cert.pem", f"{certificate}/key.pem")
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", PlainProxy(session, origin, auth).handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096, ssl_context=context).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), *sys.argv[2:5]))
