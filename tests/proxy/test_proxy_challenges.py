"""What a rejected client learns: which scopes to ask for, and where the metadata is."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from support.deadlines import until, within
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.oauth.models import AccessToken

READ, WRITE = "orders:read", "orders:write"


def challenge(fields: Any) -> dict[str, str]:
    """The parameters of the one challenge."""
    return dict(re.findall(r'(\w+)="([^"]*)"', fields["WWW-Authenticate"]))


async def ask(gateway: RunningGateway, path: str, token: str | None = None) -> tuple[int, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url(path), headers=headers) as response:
        return response.status, challenge(response.headers)


async def test_every_challenge_names_the_scopes_of_the_route(gateway: RunningGateway) -> None:
    token = await gateway.token()
    for given, status in ((None, 401), ("unknown", 401), (token, 403)):
        assert (await ask(gateway, "/api/write", given))[1]["scope"] == WRITE
        assert (await ask(gateway, "/api/write", given))[0] == status
    async with gateway.session.get(
        gateway.url("/api/write"), headers={"Authorization": "DPoP " + token, "DPoP": "x"}
    ) as response:
        assert response.status == 401
        assert challenge(response.headers)["scope"] == WRITE
    _, without = await ask(gateway, "/api/x")
    assert "scope" not in without, "it needs none"


class _HeldStore:
    """Knows no token, and says so when it is let go."""

    def __init__(self) -> None:
        self.may_respond = asyncio.Event()

    async def get_token(self, digest: bytes) -> AccessToken | None:
        await self.may_respond.wait()
        return None


async def test_requests_that_share_a_look_up_each_name_what_their_route_needs(
    start: StartGateway, upstream: RawUpstream
) -> None:
    routes = [
        {"name": path, "match": {"path": f"/{path}"}, "upstream": "main", "scopes": [scope]}
        for path, scope in (("read", READ), ("write", WRITE))
    ]
    gateway = await start(upstream.url, routes=routes)
    validator, store = gateway.gateway.validator, _HeldStore()
    validator._store = store
    asking = [asyncio.create_task(ask(gateway, path, "unknown")) for path in ("/read", "/write")]
    await until(lambda: validator._lookups["miss"] == 2)
    store.may_respond.set()
    async with within():
        (_, read), (_, write) = await asyncio.gather(*asking)
    assert (read["scope"], write["scope"]) == (READ, WRITE)
    for path, given in (("read", read), ("write", write)):
        assert given["resource_metadata"].endswith(f"/{path}")


async def test_challenge_leads_to_metadata_of_the_very_url(gateway: RunningGateway) -> None:
    for path in ("/api", "/api/x/y", "/api/write"):
        _, given = await ask(gateway, path)
        url = given["resource_metadata"]
        assert url == f"http://gateway.test/.well-known/oauth-protected-resource{path}"
        async with gateway.session.get(gateway.url(url.removeprefix("http://gateway.test"))) as got:
            document = await got.json()
        assert document["resource"] == f"http://gateway.test{path}"
    assert document["scopes_supported"] == [WRITE]


async def test_metadata_lists_what_the_unconditional_route_needs(
    start: StartGateway, upstream: RawUpstream
) -> None:
    def route(name: str, scope: str, **match: Any) -> dict[str, Any]:
        found = {"path": "/mcp"} | match
        return {"name": name, "match": found, "upstream": "main", "scopes": [scope]}

    gateway = await start(
        upstream.url,
        routes=[
            route("admin", WRITE, headers=[{"name": "Mcp-Name", "exact": "drop"}]),
            route("mcp", READ),
        ],
    )
    path = "/.well-known/oauth-protected-resource/mcp"
    async with gateway.session.get(gateway.url(path)) as response:
        assert (await response.json())["scopes_supported"] == [READ]


async def test_token_for_a_url_below_a_route_is_good_on_the_route(
    gateway: RunningGateway,
) -> None:
    await gateway.create_client("shop")

    async def token_for(resource: str) -> Any:
        form = {"grant_type": "client_credentials", "resource": resource,
                "client_id": "shop", "client_secret": "secret"}  # fmt: skip
        async with gateway.session.post(gateway.url("/token"), data=form) as response:
            return await response.json()

    for resource in ("http://gateway.test/api/x", "HTTP://GATEWAY.test:80/api/"):
        token = (await token_for(resource))["access_token"]
        assert await status(gateway, "/api/x", token) == 200
        assert await status(gateway, "/maybe", token) == 401, "for another resource"
    assert (await token_for("http://gateway.test/nowhere"))["error"] == "invalid_target"


async def status(gateway: RunningGateway, path: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url(path), headers=headers) as response:
        return response.status
