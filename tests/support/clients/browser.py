"""A browser without script, in front of the provider's pages: cookies, redirects, forms."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from support.clients.web_forms import Page
from support.provider import FORM, Provider, Reply, basic

from gateway.oauth.client_metadata import ClientMetadata

VERIFIER = "a-verifier-that-is-long-enough-for-rfc-7636-0123456789"
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)
REDIRECT = "https://app.example/callback"
PASSWORD = "correct horse battery"
WEB = ClientMetadata(grant_types=("authorization_code",), redirect_uris=(REDIRECT,))
REQUEST = {
    "response_type": "code",
    "client_id": "web",
    "redirect_uri": REDIRECT,
    "scope": "orders:read",
    "state": "a state",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


def authorization_parameters(**changes: Any) -> str:
    """An authorization request as a query; what is None is left out."""
    wanted = {**REQUEST, **changes}
    pairs = {name: value for name, value in wanted.items() if value is not None}
    return urlencode(pairs, doseq=True)


async def open_door(provider: Provider, *, metadata: ClientMetadata = WEB, **rules: Any) -> None:
    """Let the provider give codes; with the client `web` and the user `alice`."""
    rules.setdefault("grant_types", ("client_credentials", "authorization_code", "refresh_token"))
    provider.change(**rules)
    secret = "secret" if metadata.uses_secret else None
    await provider.server.register_client(
        client_id="web", client_secret=secret, client_name="Web Shop", metadata=metadata
    )
    await provider.server.users.add("alice", PASSWORD, name="Alice")


@dataclass
class Browser:
    """What one browser does."""

    provider: Provider
    source: str = "192.0.2.7"
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, url: str) -> Reply:
        """Follow a link to the provider."""
        return await self._send("GET", url, {})

    async def send(self, page: Reply, button: int = 0, **typed: str) -> Reply:
        """Fill in the only form of a page and press a button."""
        form = Page(page.body.decode()).form
        fields = form.fields | typed
        if form.buttons:
            fields |= [form.buttons[button]]
        return await self.post(form.action, fields)

    async def post(self, url: str, fields: dict[str, str]) -> Reply:
        """Send a form."""
        return await self._send("POST", url, FORM, urlencode(fields))

    async def _send(self, method: str, url: str, headers: dict[str, str], body: str = "") -> Reply:
        parts = urlsplit(url)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        reply = await self.provider.fetch(
            method, parts.path, {**headers, **({"Cookie": cookie} if cookie else {})}, body,
            query=parts.query, source=self.source,
        )  # fmt: skip
        for name, value in reply.fields:
            if name == "Set-Cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
                if "Max-Age=0" in value:
                    del self.cookies[key]
        return reply

    async def authorize(self, **changes: Any) -> Reply:
        """Be sent here by a client."""
        return await self.get(f"/authorize?{authorization_parameters(**changes)}")

    async def sign_in(
        self, page: Reply, password: str = PASSWORD, username: str = "alice"
    ) -> Reply:
        """Sign in, and go on to where that leads."""
        reply = await self.send(page, username=username, password=password)
        return await self.get(reply.headers["Location"]) if reply.status == 303 else reply

    async def allow(self, **changes: Any) -> Reply:
        """Go all the way to the response to the client."""
        reply = await self.authorize(**changes)
        if reply.status == 200 and b'name="password"' in reply.body:
            reply = await self.sign_in(reply)
        if reply.status == 200:
            reply = await self.send(reply)
        return reply

    async def code(self, **changes: Any) -> str:
        """A code."""
        response = reported(await self.allow(**changes))
        assert "code" in response, response
        return response["code"]


def reported(reply: Reply) -> dict[str, str]:
    """What a redirect tells the client."""
    assert reply.status == 303, reply.body
    return dict(parse_qsl(urlsplit(reply.headers["Location"]).query))


def policy_of(reply: Reply) -> dict[str, list[str]]:
    """The Content-Security-Policy of a page, by directive."""
    directives = reply.headers["Content-Security-Policy"].split("; ")
    return {one.split(" ")[0]: one.split(" ")[1:] for one in directives}


async def redeem(provider: Provider, code: str, **changes: Any) -> Reply:
    """Show a code at the token endpoint; what is None is left out."""
    who = changes.pop("who", basic("web", "secret"))
    headers = changes.pop("headers", {})
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
    } | changes
    pairs = {name: value for name, value in form.items() if value is not None}
    return await provider.fetch("POST", "/token", {**FORM, **who, **headers}, urlencode(pairs))


def query_of(url: str) -> dict[str, list[str]]:
    """The query of a URL."""
    return parse_qs(urlsplit(url).query)
