"""What else a run needs besides its upstreams' plain requests: a WebSocket server, and the platform
that vouches for workloads."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid

from aiohttp import WSMsgType, web
from joserfc.jwk import ECKey

from gateway.oauth.jose import sign_jwt
from soak.origin import expected_body

PLATFORM = "http://platform.soak"
SUBJECT = "system:serviceaccount:soak:caller"


class Peers:
    """A server on a port of loopback: `/ws/NUMBER` and `/jwks`."""

    def __init__(self) -> None:
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._open: set[asyncio.Transport] = set()
        """Of WebSockets."""
        self._key = ECKey.generate_key("P-256", auto_kid=True)

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        app = web.Application()
        app.add_routes([web.get("/ws/{number}", self._talk), web.get("/jwks", self._jwks)])
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Go away, with every connection."""
        for transport in self._open:
            transport.abort()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def assert_workload(self, audience: str) -> str:
        """A token of the platform for a workload, as a pod has it, for one use."""
        now = int(time.time())
        claims = {
            "iss": PLATFORM, "sub": SUBJECT, "aud": audience, "jti": uuid.uuid4().hex,
            "iat": now, "exp": now + 60,
        }  # fmt: skip
        return sign_jwt({"alg": "ES256", "kid": self._key.kid}, claims, self._key)

    async def _jwks(self, request: web.Request) -> web.Response:
        public = {**self._key.as_dict(private=False), "kid": self._key.kid}
        return web.json_response({"keys": [public]})

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        """Respond to each message with proof of what it was."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        transport = request.transport
        assert transport is not None
        self._open.add(transport)
        with contextlib.suppress(ConnectionError):  # aborted by `stop`, or left
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    proof = expected_body(request.match_info["number"], message.data)
                    await socket.send_bytes(proof)
        self._open.discard(transport)
        return socket
