"""The authorization endpoint of a whole gateway, as its configuration wires it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from support.clients.browser import CHALLENGE, VERIFIER
from support.clients.web_forms import Page
from support.running_gateway import ADMIN_TOKEN, StartGateway, basic
from support.servers.openid_server import CLIENT_ID, CLIENT_SECRET, openid_server
from support.servers.raw_upstream import RawUpstream

from examples.ports import free_port
from gateway.oauth.client_metadata import ClientMetadata

WEB = "https://app.example/callback"


async def test_users_of_an_openid_provider_sign_in_there_and_reach_the_upstream(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    async with openid_server() as openid, httpx.AsyncClient() as browser:
        port = free_port()
        issuer = f"http://127.0.0.1:{port}"
        gateway = await start(
            upstream.url,
            listen={"port": port},
            provider={
                "issuer": issuer,
                "grant_types": ["client_credentials", "authorization_code"],
                "seal_key_file": str(tmp_path / "gateway.key"),
                "users": {
                    "source": "oidc",
                    "oidc": {
                        "name": "corp", "issuer": openid.url, "client_id": CLIENT_ID,
                        "client_secret": CLIENT_SECRET, "scopes": ["openid", "profile"],
                    },
                },
            },
        )  # fmt: skip
        created = await browser.post(
            f"http://127.0.0.1:{gateway.gateway.admin_address[1]}/api/v1/clients",
            json={
                "client_id": "web", "client_secret": "secret", "redirect_uris": [WEB],
                "grant_types": ["authorization_code"],
            },
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        )  # fmt: skip
        assert created.status_code == 201
        requested = {
            "response_type": "code", "client_id": "web", "redirect_uri": WEB,
            "scope": "orders:read", "code_challenge": CHALLENGE, "code_challenge_method": "S256",
        }  # fmt: skip
        consent = await browser.get(f"{issuer}/authorize", params=requested, follow_redirects=True)
        assert "corp:248289761001" in consent.text
        form = Page(consent.text).form
        response = await browser.post(
            f"{issuer}{form.action}", data=form.fields | {"decision": "allow"}
        )
        code = httpx.URL(response.headers["Location"]).params["code"]
        given = await browser.post(
            f"{issuer}/token",
            data={
                "grant_type": "authorization_code", "code": code, "redirect_uri": WEB,
                "code_verifier": VERIFIER,
            },
            headers=basic("web", "secret"),
        )  # fmt: skip
        token = {"Authorization": f"Bearer {given.json()['access_token']}"}
        assert (await browser.get(f"{issuer}/api/x", headers=token)).status_code == 200
        assert upstream.requests[-1].all(b"x-token-subject") == [b"corp:248289761001"]
        assert not upstream.requests[-1].all(b"cookie"), "the session is ours"
        lines = await gateway.logged(6)
        (line,) = [one for one in lines if one["path"] == "/authorize/consent"]
        assert code not in str(lines)
        assert line["status"] == 303


async def test_pages_carry_title_logo_and_scopes_in_words(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    picture = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    (tmp_path / "logo.svg").write_text(picture)
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    gateway = await start(
        upstream.url,
        listen={"port": port},
        provider={
            "issuer": issuer,
            "grant_types": ["authorization_code"],
            "seal_key_file": str(tmp_path / "gateway.key"),
            "users": {
                "pages": {
                    "title": "Example & Sons", "logo": str(tmp_path / "logo.svg"),
                    "scopes": {"orders:read": "See <your> orders"},
                }
            },
        },
    )  # fmt: skip
    await gateway.gateway._provider.server.users.add("carol", "correct horse battery")
    await gateway.gateway._provider.server.register_client(
        client_id="web",
        metadata=ClientMetadata(redirect_uris=(WEB,), grant_types=("authorization_code",)),
    )
    requested = {
        "response_type": "code", "client_id": "web", "redirect_uri": WEB,
        "scope": "orders:read orders:write", "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }  # fmt: skip
    async with httpx.AsyncClient() as browser:
        page = await browser.get(f"{issuer}/authorize", params=requested, follow_redirects=True)
        assert "Example &amp; Sons" in page.text
        (logo,) = re.findall(r'<img class="logo" src="([^"]+)"', page.text)
        served = await browser.get(f"{issuer}{logo}")
        assert (served.text, served.headers["Content-Type"]) == (picture, "image/svg+xml")
        assert "sandbox" in served.headers["Content-Security-Policy"]
        form = Page(page.text).form
        consent = await browser.post(
            f"{issuer}{form.action}",
            data=form.fields | {"username": "carol", "password": "correct horse battery"},
            follow_redirects=True,
        )
    assert "See &lt;your&gt; orders" in consent.text
    assert "<code>orders:write</code>" in consent.text
