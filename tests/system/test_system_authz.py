"""Other proxies in front, which ask the gateway: nginx, Caddy, HAProxy and Envoy as they are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import yaml
from support.deadlines import until, within
from support.processes.asking_proxy import (
    CONFIG,
    KINDS,
    NGINX,
    Kind,
    calling_proxy,
    until_listening,
)
from support.running_gateway import (
    ADMIN_TOKEN,
    REGISTRATION_TOKEN,
    RawClient,
    RunningGateway,
    basic,
    start_gateway,
)
from support.servers.raw_upstream import RawUpstream
from support.stores.faults import break_store, mend_store
from support.tiers import slow

pytestmark = pytest.mark.system

GUIDE = (CONFIG.parents[1] / "docs" / "guides" / "external-authorization.md").read_text()


@dataclass
class Front:
    """A proxy that asks the gateway before it forwards to the service."""

    kind: Kind
    port: int
    gateway: RunningGateway
    service: RawUpstream

    async def get(
        self, path: str, token: str | None = None, *headers: bytes, method: str = "GET"
    ) -> tuple[int, dict[str, str]]:
        """Send a request as it stands; gives status and header fields."""
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: api.example.com", *headers]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}".encode())
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = RawClient(reader, writer)
        await client.send(b"\r\n".join((*lines, b"Connection: close", b"", b"")))
        response = await client.read_response(has_body=False)
        await client.close()
        return response.status, {name.lower(): value for name, value in response.headers}


@asynccontextmanager
async def running_front(
    kind: Kind, tmp_path: Path, *routes: dict[str, Any]
) -> AsyncIterator[Front]:
    """A proxy, with the gateway of `config/authz/gateway.yaml` behind it, and further routes."""
    text = (CONFIG / "gateway.yaml").read_text()
    text = text.replace("${DIALECT:-nginx}", kind.dialect)
    text = text.replace("${REGISTRATION_TOKEN}", REGISTRATION_TOKEN)
    config = yaml.safe_load(text)
    config["listen"] = {"host": "127.0.0.1", "port": 0}
    config["admin"] = {"port": 0, "token": ADMIN_TOKEN}
    config["authz"]["port"] = 0
    config["store"] = f"sqlite:///{tmp_path}/gateway.db"
    config["access_log"] = {"path": str(tmp_path / "access.log")}
    limit = {"requests": 2, "per": "1h"}
    config["routes"].append({"name": "few", "match": {"path": "/few"}, "rate_limit": limit})
    config["routes"] += routes
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(RawUpstream())
        session = await stack.enter_async_context(aiohttp.ClientSession())
        gateway = await start_gateway(tmp_path, yaml.safe_dump(config), session)
        stack.push_async_callback(gateway.stop)
        port, process = stack.enter_context(
            calling_proxy(
                kind,
                tmp_path,
                service=service.port,
                authz=gateway.gateway.authz_address[1],
                provider=gateway.port,
            )
        )
        await until_listening(port, process, tmp_path / f"{kind.name}.log")
        yield Front(kind, port, gateway, service)


@pytest.fixture(
    params=[
        pytest.param(kind, id=kind.name, marks=[slow("proxies")] if kind is not NGINX else [])
        for kind in KINDS
    ]
)
async def front(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Front]:
    """Each of the proxies."""
    async with running_front(request.param, tmp_path) as running:
        yield running


async def test_token_from_the_gateway_passes_the_proxy_and_the_service_learns_whose_it_is(
    front: Front,
) -> None:
    await front.gateway.create_client("shop", client_name="The shop")
    url = f"http://127.0.0.1:{front.port}"
    async with front.gateway.session.post(
        f"{url}/token", data={"grant_type": "client_credentials"}, headers=basic("shop", "secret")
    ) as response:
        assert response.status == 200
        token = (await response.json())["access_token"]
    async with front.gateway.session.post(
        f"{url}/api/orders?page=2",
        data=b"x" * 5000,
        headers={"Authorization": f"Bearer {token}"},
    ) as response:
        assert (response.status, await response.text()) == (200, "ok")
    (received,) = front.service.requests
    assert received.request_line == b"POST /api/orders?page=2 HTTP/1.1"
    assert received.body == b"x" * 5000
    assert received.all(b"x-client-id") == [b"shop"]
    assert received.all(b"x-client-name") == [b"The shop"]
    assert received.all(b"x-token-scopes") == [b"orders:read"]
    assert received.all(b"authorization") == []
    logged = (await front.gateway.logged(3))[-1]
    assert (logged["method"], logged["path"], logged["route"]) == ("POST", "/api/orders", "orders")
    assert (logged["status"], logged["source"]) == (200, "authz")
    # For a client on loopback, Envoy writes an address of the machine down.
    own = [address.address for each in psutil.net_if_addrs().values() for address in each]
    assert logged["client"] in (own if front.kind.name == "envoy" else ["127.0.0.1"])
    assert await front.gateway.metric("gateway_auth_decisions_total", result="ok") == 1


async def test_nginx_copies_a_claim_by_the_lines_of_the_guide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = re.search(r"^\| nginx \| `(auth_request_set .*;)` and `(.*;)` \|$", GUIDE, re.MULTILINE)
    assert lines is not None
    directory = tmp_path / "config"
    directory.mkdir()
    text = (CONFIG / "nginx.conf").read_text()
    whole = text.replace("auth_request /_authz;", f"auth_request /_authz; {lines[1]} {lines[2]}")
    (directory / "nginx.conf").write_text(whole)
    monkeypatch.setattr("support.processes.asking_proxy.CONFIG", directory)
    fields = {"X-Tenant": "{claim:client_id}"}
    route = {"name": "who", "match": {"path": "/who"}, "request_headers": {"set": fields}}
    async with running_front(NGINX, tmp_path, route) as front:
        token = await front.gateway.token("shop")
        assert (await front.get("/who", token, b"X-Tenant: admin"))[0] == 200
        assert (await front.get("/public", None, b"X-Tenant: admin"))[0] == 200
        with_claim, without = front.service.requests
        assert with_claim.all(b"x-tenant") == [b"shop"]
        assert without.all(b"x-tenant") == []


async def test_missing_and_bad_tokens_are_401_with_the_challenge(front: Front) -> None:
    status, headers = await front.get("/api/orders")
    assert status == 401
    assert headers["www-authenticate"].startswith('Bearer realm="gateway"')
    status, headers = await front.get("/api/orders", "made-up")
    assert status == 401
    assert 'error="invalid_token"' in headers["www-authenticate"]
    assert (await front.get("/public/x"))[0] == 200
    assert len(front.service.requests) == 1


async def test_token_without_the_scope_is_403_with_the_challenge(front: Front) -> None:
    token = await front.gateway.token(scope="orders:read")
    assert (await front.get("/api/orders", token))[0] == 200
    status, headers = await front.get("/api/write", token)
    assert status == 403
    assert 'scope="orders:write"' in headers["www-authenticate"]
    assert len(front.service.requests) == 1


async def test_revoked_token_is_refused_soon(front: Front) -> None:
    token = await front.gateway.token("shop")
    assert (await front.get("/api/orders", token))[0] == 200
    async with front.gateway.session.post(
        front.gateway.admin_url("/api/v1/tokens/revoke"),
        json={"token": token},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status == 200
    async with within():
        while (await front.get("/api/orders", token))[0] != 401:
            pass


async def test_store_that_is_down_is_503_and_never_a_pass_but_cached_tokens_go_on(
    front: Front,
) -> None:
    cached, unseen = await front.gateway.token("one"), await front.gateway.token("two")
    assert (await front.get("/api/orders", cached))[0] == 200
    path = front.gateway.directory / "gateway.db"
    break_store(path)
    status, headers = await front.get("/api/orders", unseen)
    assert status == 503
    assert int(headers["retry-after"]) >= 1
    assert (await front.get("/api/orders", cached))[0] == 200
    mend_store(path)

    statuses: list[int] = []
    while statuses[-1:] != [200]:
        statuses.append((await front.get("/api/orders", unseen))[0])
        assert len(statuses) < 500
    assert set(statuses) <= {200, 503}


async def test_used_up_rate_limit_is_429_and_says_when_to_come_back(front: Front) -> None:
    token = await front.gateway.token()
    assert [(await front.get("/few", token))[0] for _ in range(2)] == [200, 200]
    status, headers = await front.get("/few", token)
    assert status == 429
    assert int(headers["retry-after"]) > 1000
    assert len(front.service.requests) == 2


@pytest.mark.parametrize("path", ["/public/x", "/api/x"])
async def test_identity_that_a_client_claims_never_reaches_the_service(
    front: Front, path: str
) -> None:
    claims = [
        b"%b: admin" % name
        for name in (
            b"X-Client-Id", b"X-Client-Name", b"X-Token-Scopes", b"X-Token-Subject",
            b"x-CLIENT-id", b"X_Client_Id", b"X-Client_Id", b"X_Token-Subject",
        )
    ]  # fmt: skip
    token = await front.gateway.token("shop")
    status, _ = await front.get(path, token, *claims)
    if front.kind.name == "envoy" and status == 400:
        # It refuses fields with underscores. Those without must be replaced all the same.
        status, _ = await front.get(path, token, *(c for c in claims if b"_" not in c))
    assert status == 200
    (received,) = front.service.requests
    for name, value in received.headers:
        assert value != b"admin", name
    assert b"".join(received.all(b"x-client-id")) == (b"shop" if path == "/api/x" else b"")


@pytest.mark.parametrize(
    "name",
    [
        b"X-HTTP-Method-Override", b"X_HTTP_Method_Override", b"X-HTTP_Method-Override",
        b"X.HTTP.Method", b"X-Method-Override",
    ],
)  # fmt: skip
async def test_second_method_never_reaches_the_service(front: Front, name: bytes) -> None:
    status, _ = await front.get("/public/x", None, name + b": DELETE")
    assert status in {200, 400}
    for received in front.service.requests:
        assert b"DELETE" not in {value for _, value in received.headers}


@pytest.mark.parametrize(
    "field",
    [
        b"X-Original-URI: /public/x", b"X-Original-URL: http://api.example.com/public/x",
        b"X-Forwarded-Uri: /public/x", b"X-Forwarded-Host: other", b"X-Rewrite-URL: /public/x",
        b"X-Envoy-Original-Path: /public/x", b"X_Original_URI: /public/x",
        b"Connection: close, X-Original-URI, X-Forwarded-Uri",
    ],
)  # fmt: skip
async def test_target_that_a_client_claims_decides_nothing(front: Front, field: bytes) -> None:
    status, _ = await front.get("/api/orders", None, field)
    assert status in {400, 401}
    status, _ = await front.get("/public/x", None, field.replace(b"/public/x", b"/api/x"))
    assert status in {200, 400}
    assert all(r.request_line.startswith(b"GET /public/x ") for r in front.service.requests)


@pytest.mark.parametrize(
    "path",
    [
        "/public/../api/x", "/public/%2e%2e/api/x", "/public/%2E./api/x", "//api/x", "/./api/x",
        "/public//../api/x", "/api/../public/x", "/api//../public/x", "/public/..%2fapi/x",
        "/public/..;/api/x", "/public/..%5capi/x", "/public/x/..", "/api/%2e%2e/public/x",
        "/%61pi/x", "/api%2fx", "/public\\..\\api/x", "/publicity", "/API/x",
    ],
)  # fmt: skip
async def test_without_a_token_only_paths_pass_that_cannot_be_taken_for_another(
    front: Front, path: str
) -> None:
    status, _ = await front.get(path)
    for received in front.service.requests:
        forwarded = received.request_line.split()[1]
        assert forwarded.startswith(b"/public/"), forwarded
        assert b".." not in forwarded
        assert b"%" not in forwarded
        assert b"//" not in forwarded
    assert status in {200, 301, 307, 400, 401, 403, 404}
    assert (status == 200) == bool(front.service.requests)


async def test_gateway_that_is_gone_is_never_a_pass(front: Front) -> None:
    token = await front.gateway.token()
    assert (await front.get("/api/orders", token))[0] == 200
    await front.gateway.gateway.stop()
    await until(lambda: not front.gateway.gateway.connections)
    for path in ("/api/orders", "/public/x"):
        status, _ = await front.get(path, token)
        assert status in {502, 503}
    assert len(front.service.requests) == 1
