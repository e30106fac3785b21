"""What else a run needs besides its upstreams' plain requests: a WebSocket server, and the platform
that vouches for workloads."""

from __future__ import annotations

import asyncio
import socket
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
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=128)
        await web.SockSite(self._runner, self._listening).start()
        self.port = self._listening.getsockname()[1]

    async def stop(self) -> None:
        """Go away, with every connection."""
        if self._runner is None:
            return
        # A connection that asyncio accepts while its server closes stays open, and is not served.
        asyncio.get_running_loop().remove_reader(self._listening)
        for _ in range(3):
            await asyncio.sleep(0)
        runner, self._runner = self._runner, None
        for transport in self._open:
            transport.abort()
        await runner.cleanup()

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
        conversation = web.WebSocketResponse()
        transport = request.transport
        assert transport is not None
        self._open.add(transport)
        if self._runner is None:
            transport.abort()
        try:
            await conversation.prepare(request)
            async for message in conversation:
                if message.type is WSMsgType.BINARY:
                    proof = expected_body(request.match_info["number"], message.data)
                    await conversation.send_bytes(proof)
        except ConnectionError:  # aborted by `stop`, or left
            pass
        finally:
            self._open.discard(transport)
        return conversation
