"""An OpenID provider on a real socket: discovery, sign-in without questions, signed id tokens."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from joserfc.jwk import Key
from support.jose_values import jwks, make_key
from support.servers.issuer import served

from gateway.oauth.jose import sign_jwt

CLIENT_ID = "the gateway"
CLIENT_SECRET = "upstream secret: 100%"


@dataclass
class OpenIdServer:
    """What it says, and what a test wants otherwise."""

    key: Key = field(default_factory=make_key)
    subject: str = "248289761001"
    claims: dict[str, Any] = field(default_factory=dict)
    """Members of the id token that differ; None leaves one out."""
    header: dict[str, Any] = field(default_factory=dict)
    signing_key: Key | None = None
    """If not the one that is published."""
    discovery: dict[str, Any] = field(default_factory=dict)
    response: dict[str, str] = field(default_factory=dict)
    """Parameters that it sends back in place of its own."""
    status: int = 200
    now: float | None = None
    url: str = ""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: list[dict[str, str]] = field(default_factory=list)

    async def describe(self, request: web.Request) -> web.Response:
        """OpenID Connect Discovery 1.0 section 4."""
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "authorization_response_iss_parameter_supported": True,
        }
        return web.json_response(document | self.discovery, status=self.status)

    async def publish(self, request: web.Request) -> web.Response:
        """The key set."""
        return web.json_response(jwks(self.key))

    async def authorize(self, request: web.Request) -> web.Response:
        """Let everybody in as `subject`."""
        requested = dict(request.query)
        self.requests.append(requested)
        code = f"code-{len(self.codes)}"
        self.codes[code] = requested
        response = {"code": code, "state": requested["state"], "iss": self.url} | self.response
        query = urlencode({name: value for name, value in response.items() if value})
        return web.Response(
            status=302, headers={"Location": f"{requested['redirect_uri']}?{query}"}
        )

    async def token(self, request: web.Request) -> web.Response:
        """Check the code, the client and the verifier; give an id token."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        requested = self.codes.pop(form.get("code", ""), None)
        pair = "the+gateway:upstream+secret%3A+100%25"
        expected = f"Basic {base64.b64encode(pair.encode()).decode()}"
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            requested is None
            or request.headers.get("Authorization") != expected
            or challenge != requested["code_challenge"]
            or form.get("redirect_uri") != requested["redirect_uri"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(self.now or time.time())
        claims = {
            "iss": self.url, "sub": self.subject, "aud": CLIENT_ID, "iat": now, "exp": now + 60,
            "nonce": requested["nonce"], "name": "Alice",
        } | self.claims  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": "ES256", "kid": self.key.kid} | self.header
        return web.json_response(
            {
                "access_token": "theirs",
                "token_type": "Bearer",
                "id_token": sign_jwt(header, claims, self.signing_key or self.key),
            }
        )


@asynccontextmanager
async def openid_server() -> AsyncIterator[OpenIdServer]:
    """A running server."""
    running = OpenIdServer()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", running.describe)
    app.router.add_get("/jwks", running.publish)
    app.router.add_get("/authorize", running.authorize)
    app.router.add_post("/token", running.token)
    async with served(app) as running.url:
        yield running
