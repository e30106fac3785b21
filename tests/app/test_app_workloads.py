"""Workloads at a whole gateway: the keys of a cluster, the audit log, certificates, a reload."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from support.clients.tls_client import fetch_over_tls, token_request
from support.deadlines import within
from support.jose_values import make_certificate, make_key
from support.platforms import ORDERS, github_token, service_account_token
from support.processes.postgresql import PostgresServer
from support.processes.redis import RedisServer
from support.protocols import only_http1
from support.running_gateway import RunningGateway, StartGateway
from support.servers.issuer import issuer
from support.servers.raw_upstream import RawUpstream

from gateway.oauth.policy import JWT_BEARER

US = "http://gateway.test"


async def grant_by(gateway: RunningGateway, assertion: str) -> tuple[int, dict[str, Any]]:
    form = {"grant_type": JWT_BEARER, "assertion": assertion}
    async with gateway.session.post(gateway.url("/token"), data=form) as response:
        return response.status, json.loads(await response.text())


async def test_pod_calls_with_the_token_of_its_account_and_the_audit_log_names_it(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    """The keys of the cluster are behind a private CA and a bearer."""
    ca = make_certificate(tmp_path, "ca", is_ca=True)
    server = make_certificate(tmp_path, "server", issuer=ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert, server.key)
    (tmp_path / "token").write_text("the gateway's own")
    key = make_key("RS256")
    async with issuer(key, tls=context) as cluster:
        cluster.token = "the gateway's own"
        rule = {"issuer": "cluster", "subject": ORDERS, "client_id": "orders"}
        gateway = await start(
            upstream.url,
            jwt_issuers=[
                {"name": "cluster", "issuer": cluster.url, "audience": [US], "ca": str(ca.cert),
                 "token_file": str(tmp_path / "token"), "access_tokens": False}
            ],
            workloads=[rule | {"scopes": ["orders:write"], "token_ttl": "15m"}],
        )  # fmt: skip
        now = time.time()
        token = service_account_token(key, US, now, iss=cluster.url)
        status, reply = await grant_by(gateway, token)
        assert (status, reply["scope"], reply["expires_in"]) == (200, "orders:write", 900)
        headers = {"Authorization": f"Bearer {reply['access_token']}"}
        async with gateway.session.get(gateway.url("/api/write"), headers=headers) as response:
            assert response.status == 200
        headers = {"Authorization": f"Bearer {token}"}
        async with gateway.session.get(gateway.url("/api/x"), headers=headers) as response:
            assert response.status == 401
    _, found = await gateway.call_api("GET", "/api/v1/audit")
    (entry,) = [one for one in found["entries"] if one["action"] == "token.issue"]
    assert entry["actor"] == f"workload cluster:{ORDERS}"
    assert entry["target"] == "orders"
    assert "namespace=shop pod=orders-5d9c7b6f4-x2x7k" in entry["detail"]
    assert "node=worker-1" in entry["detail"]


@pytest.mark.parametrize("fixture", ["redis_server", "own_postgresql"])
async def test_replicas_accept_a_token_once_and_none_while_the_store_is_away(
    start: StartGateway, upstream: RawUpstream, request: pytest.FixtureRequest, fixture: str
) -> None:
    server: RedisServer | PostgresServer = request.getfixturevalue(fixture)
    key = make_key("RS256")
    async with issuer(key) as platform:
        issuers = [{"name": "ci", "issuer": platform.url, "audience": [US], "access_tokens": False}]
        main = "repo:org/name:ref:refs/heads/main"
        rule = {"issuer": "ci", "subject": main, "client_id": "ci", "scopes": ["orders:write"]}
        replicas = [
            await start(upstream.url, store=server.url, jwt_issuers=issuers, workloads=[rule])
            for _ in range(2)
        ]

        def token(jti: str) -> str:
            return github_token(key, US, time.time(), iss=platform.url, jti=jti)

        assert (await grant_by(replicas[0], token("one")))[0] == 200
        for gateway in replicas:
            status, reply = await grant_by(gateway, token("one"))
            assert (status, reply["error"]) == (400, "invalid_grant")
        assert (await grant_by(replicas[1], token("two")))[0] == 200
        server.kill()
        for gateway in replicas:
            status, reply = await grant_by(gateway, token("three"))
            assert (status, reply["error"]) == (503, "temporarily_unavailable")
        server.start()

        async def is_back() -> bool:
            return (await grant_by(replicas[0], token("three")))[0] == 200

        async with within():
            while not await is_back():
                await asyncio.sleep(0.05)
        assert (await grant_by(replicas[1], token("three")))[0] == 400


@only_http1
async def test_svid_of_an_own_tls_listener_stands_for_a_client(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    ca = make_certificate(tmp_path, "ca", is_ca=True)
    server, billing, other = (
        make_certificate(tmp_path, name, issuer=ca) for name in ("server", "billing", "other")
    )
    tls = {"cert": str(server.cert), "key": str(server.key), "client_ca": str(ca.cert),
           "client_auth": "optional"}  # fmt: skip
    rule = {"trust_domain": "tests", "ca": str(ca.cert), "subject": "spiffe://tests/billing"}
    gateway = await start(
        upstream.url,
        listen={"tls": tls},
        workloads=[rule | {"client_id": "billing", "scopes": ["orders:read"]}],
    )
    assert b" 200 OK" in await fetch_over_tls(gateway, ca, token_request(), billing)
    assert b" 401 " in await fetch_over_tls(gateway, ca, token_request(), other)
    assert b" 401 " in await fetch_over_tls(gateway, ca, token_request(), None)
