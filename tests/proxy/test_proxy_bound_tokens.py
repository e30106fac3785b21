"""Tokens that are not good everywhere for everybody: audience, certificate and key."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.clients.tls_client import fetch_over_tls, token_request
from support.jose_values import make_certificate, make_key, make_proof
from support.processes.redis import RedisServer
from support.protocols import both_protocols, only_http1
from support.running_gateway import (
    ADMIN_TOKEN,
    REGISTRATION_TOKEN,
    RunningGateway,
    StartGateway,
    basic,
)
from support.servers.raw_upstream import RawUpstream
from yarl import URL

pytestmark = both_protocols

ORDERS = "http://gateway.test/api"
KEY = make_key()


async def get_token(
    gateway: RunningGateway, client_id: str = "shop", *, proof: str = "", **form: str
) -> str:
    headers = basic(client_id, "secret") | ({"DPoP": proof} if proof else {})
    async with gateway.session.post(
        gateway.url("/token"), data={"grant_type": "client_credentials"} | form, headers=headers
    ) as response:
        assert response.status == 200, await response.text()
        token: str = (await response.json())["access_token"]
        return token


async def get(
    gateway: RunningGateway, path: str, headers: dict[str, str] | list[tuple[str, str]]
) -> tuple[int, str]:
    async with gateway.session.get(gateway.url(path), headers=headers) as response:
        return response.status, response.headers.get("WWW-Authenticate", "")


async def create_client(gateway: RunningGateway, **members: Any) -> None:
    async with gateway.session.post(
        gateway.admin_url("/api/v1/clients"),
        json={"client_id": "shop", "client_secret": "secret"} | members,
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status == 201, await response.text()


async def test_challenge_of_a_route_names_its_metadata_which_is_there(
    gateway: RunningGateway,
) -> None:
    for path, headers in (("/api/x", {}), ("/api/x", {"Authorization": "Bearer unknown"})):
        status, challenge = await get(gateway, path, headers)
        assert status == 401
        assert (
            'resource_metadata="http://gateway.test/.well-known/oauth-protected-resource/api/x"'
            in challenge
        )
    path = "/.well-known/oauth-protected-resource/api"
    async with gateway.session.get(gateway.url(path)) as response:
        assert response.status == 200
        assert (await response.json())["resource"] == ORDERS


async def test_token_for_one_route_is_no_key_to_another(gateway: RunningGateway) -> None:
    await create_client(gateway)
    token = await get_token(gateway, resource=ORDERS)
    headers = {"Authorization": f"Bearer {token}"}
    assert (await get(gateway, "/api/x", headers))[0] == 200
    status, challenge = await get(gateway, "/maybe", headers)
    assert (status, 'error="invalid_token"' in challenge) == (401, True)
    assert await gateway.metric("gateway_auth_decisions_total", result="audience") == 1


async def test_route_with_an_audience_refuses_tokens_for_nothing_in_particular(
    start: StartGateway, upstream: RawUpstream
) -> None:
    routes = [
        {"name": "files", "match": {"path": "/files"}, "upstream": "main",
         "audience": ["urn:example:files"]},
    ]  # fmt: skip
    gateway = await start(upstream.url, routes=routes)
    await create_client(gateway)
    plain = await get_token(gateway)
    assert (await get(gateway, "/files", {"Authorization": f"Bearer {plain}"}))[0] == 401
    for resource in ("urn:example:files", "http://gateway.test/files"):
        token = await get_token(gateway, resource=resource)
        assert (await get(gateway, "/files", {"Authorization": f"Bearer {token}"}))[0] == 200


# DPoP.


async def bound_token(gateway: RunningGateway) -> str:
    await create_client(gateway)
    proof = make_proof(KEY, "POST", "http://gateway.test/token", time.time())
    return await get_token(gateway, proof=proof)


def shown(token: str, path: str = "/api/x", **claims: Any) -> dict[str, str]:
    proof = make_proof(
        KEY, "GET", f"http://gateway.test{path}", time.time(), token=token,
        **{"jti": f"{time.monotonic_ns()}"} | claims,
    )  # fmt: skip
    return {"Authorization": f"DPoP {token}", "DPoP": proof}


async def test_bound_token_passes_with_a_proof_for_each_request(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    token = await bound_token(gateway)
    for _ in range(2):
        assert (await get(gateway, "/api/x?q=1", shown(token)))[0] == 200
    assert upstream.requests[-1].all(b"x-client-id") == [b"shop"]


async def test_bound_token_is_refused_without_a_proof_that_holds(gateway: RunningGateway) -> None:
    token = await bound_token(gateway)
    good = shown(token)
    assert (await get(gateway, "/api/x", good))[0] == 200
    for headers, error in (
        (good, "invalid_dpop_proof"),
        ({"Authorization": f"Bearer {token}"}, "invalid_token"),
        ({"Authorization": f"Bearer {token}", "DPoP": shown(token)["DPoP"]}, "invalid_token"),
        ({"Authorization": f"DPoP {token}"}, "invalid_dpop_proof"),
        (shown(token, "/api/y"), "invalid_dpop_proof"),
        (shown(token, htm="POST"), "invalid_dpop_proof"),
        (shown(token, ath="x"), "invalid_dpop_proof"),
        (shown(token, htu="http://evil.test/api/x"), "invalid_dpop_proof"),
    ):
        status, challenge = await get(gateway, "/api/x", headers)
        assert (status, challenge.partition(" ")[0]) == (401, "DPoP")
        assert f'error="{error}"' in challenge
        assert 'algs="ES256' in challenge


async def test_proof_is_good_once_for_all_replicas_where_the_store_remembers_it(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    shared = {"store": redis_server.url, "provider": {"dpop": {"replay": "store"}}}
    one, another = [await start(upstream.url, **shared) for _ in range(2)]
    token = await bound_token(one)
    first, second = shown(token), shown(token)
    assert (await get(one, "/api/x", first))[0] == 200
    for gateway in (one, another):
        status, challenge = await get(gateway, "/api/x", first)
        assert (status, 'error="invalid_dpop_proof"' in challenge) == (401, True)
    assert (await get(another, "/api/x", second))[0] == 200
    validated = shown(token, "/validate")
    async with one.session.get(one.url("/validate"), headers=validated) as response:
        assert response.status == 200
    async with another.session.get(another.url("/validate"), headers=validated) as response:
        assert response.status == 401
    unused = shown(token)
    redis_server.control.config_set("maxmemory", 1)
    try:
        assert (await get(one, "/api/x", unused))[0] == 503, "what is not kept may be a copy"
    finally:
        redis_server.control.config_set("maxmemory", 0)
    assert (await get(another, "/api/x", shown(token)))[0] == 200


async def test_each_process_remembers_proofs_by_default(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer
) -> None:
    gateway = await start(upstream.url, store=redis_server.url)
    token = await bound_token(gateway)
    writes = redis_server.count_calls("hset")
    assert (await get(gateway, "/api/x", shown(token)))[0] == 200
    assert redis_server.count_calls("hset") == writes


async def test_host_header_does_not_choose_what_a_proof_is_for(gateway: RunningGateway) -> None:
    token = await bound_token(gateway)
    headers = shown(token, htu="http://evil.test/api/x") | {"Host": "evil.test"}
    assert (await get(gateway, "/api/x", headers))[0] == 401


async def test_token_that_is_bound_to_nothing_has_no_use_for_a_proof(
    gateway: RunningGateway,
) -> None:
    await create_client(gateway)
    token = await get_token(gateway)
    status, challenge = await get(gateway, "/api/x", shown(token))
    assert (status, 'error="invalid_token"' in challenge) == (401, True)
    assert (await get(gateway, "/api/x", {"Authorization": f"Bearer {token}"}))[0] == 200


async def test_scopes_count_for_bound_tokens_too(gateway: RunningGateway) -> None:
    token = await bound_token(gateway)
    status, challenge = await get(gateway, "/api/write", shown(token, "/api/write"))
    assert (status, 'error="insufficient_scope"' in challenge) == (403, True)


async def test_proof_names_the_host_that_a_wildcard_route_was_reached_at(
    start: StartGateway, upstream: RawUpstream
) -> None:
    routes = [
        {"name": "all", "match": {"path": "/api", "hosts": ["*.apis.test"]}, "upstream": "main"}
    ]
    gateway = await start(upstream.url, routes=routes)
    token = await bound_token(gateway)
    host = {"Host": "a.b.apis.test"}
    right = shown(token, htu="http://a.b.apis.test/api/x") | host
    wrong = shown(token, htu="http://c.apis.test/api/x") | host
    assert (await get(gateway, "/api/x", right))[0] == 200
    assert (await get(gateway, "/api/x", wrong))[0] == 401


# Certificates.


@only_http1
async def test_own_tls_listener_authenticates_clients_and_binds_their_tokens(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    ca = make_certificate(tmp_path, "ca", is_ca=True)
    server = make_certificate(tmp_path, "server", issuer=ca)
    billing = make_certificate(tmp_path, "billing", issuer=ca)
    other = make_certificate(tmp_path, "other", issuer=ca)
    tls = {"cert": str(server.cert), "key": str(server.key), "client_ca": str(ca.cert),
           "client_auth": "optional"}  # fmt: skip
    gateway = await start(upstream.url, listen={"tls": tls})
    await gateway_client(gateway, "billing")
    fetch = token_request("billing")
    response = await fetch_over_tls(gateway, ca, fetch, billing)
    assert b" 200 OK" in response
    token = response.partition(b'"access_token":"')[2].partition(b'"')[0]
    assert b" 401 " in await fetch_over_tls(gateway, ca, fetch, other)
    assert b" 401 " in await fetch_over_tls(gateway, ca, fetch, None)
    call = (
        b"GET /api/x HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % token
    )
    assert b" 200 OK" in await fetch_over_tls(gateway, ca, call, billing)
    for thief in (other, None):
        response = await fetch_over_tls(gateway, ca, call, thief)
        assert b" 401 " in response
        assert b'error="invalid_token"' in response


async def gateway_client(gateway: RunningGateway, name: str) -> None:
    async with gateway.session.post(
        gateway.admin_url("/api/v1/clients"),
        json={
            "client_id": name,
            "token_endpoint_auth_method": "tls_client_auth",
            "tls_client_auth_san_dns": f"{name}.example",
            "tls_client_certificate_bound_access_tokens": True,
        },
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status == 201, await response.text()


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_certificate_in_a_header_counts_only_from_a_trusted_proxy(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path, is_trusted: bool
) -> None:
    billing = make_certificate(tmp_path, "billing")
    networks = ["127.0.0.0/8"] if is_trusted else ["192.0.2.0/24"]
    gateway = await start(
        upstream.url, provider={"client_certificate_header": "X-Client-Cert"},
        trusted_proxies=networks,
    )  # fmt: skip
    await gateway_client(gateway, "billing")
    header = {"X-Client-Cert": quote(billing.cert.read_text(), safe="")}
    form = {"grant_type": "client_credentials", "client_id": "billing"}
    url = gateway.url("/token")
    async with gateway.session.post(url, data=form, headers=header) as response:
        assert response.status == (200 if is_trusted else 401)
        for spelling in ("X-Client-Cert", "x_client_cert"):
            await get(gateway, "/public", {spelling: "forged"})
            assert (b"forged" in str(upstream.requests[-1]).encode()) is (
                is_trusted and spelling == "X-Client-Cert"
            )
        if not is_trusted:
            return
        token = (await response.json())["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await get(gateway, "/api/x", bearer | header))[0] == 200
    assert (await get(gateway, "/api/x", bearer))[0] == 401
    other = quote(make_certificate(tmp_path, "other").cert.read_text(), safe="")
    assert (await get(gateway, "/api/x", bearer | {"X-Client-Cert": other}))[0] == 401
    twice = [*bearer.items(), *header.items(), *header.items()]
    assert (await get(gateway, "/api/x", twice))[0] == 401


async def test_client_manages_itself_over_http(gateway: RunningGateway) -> None:
    async with gateway.session.post(
        gateway.url("/register"), json={"client_name": "Own"},
        headers={"Authorization": f"Bearer {REGISTRATION_TOKEN}"},
    ) as response:  # fmt: skip
        assert response.status == 201
        made = await response.json()
    query = URL(made["registration_client_uri"]).raw_query_string
    headers = {"Authorization": f"Bearer {made['registration_access_token']}"}
    url = gateway.url(f"/register?{query}")
    async with gateway.session.get(url, headers=headers) as response:
        assert (response.status, (await response.json())["client_name"]) == (200, "Own")
    async with gateway.session.delete(url, headers=headers) as response:
        assert response.status == 204
        assert "Content-Length" not in response.headers
    async with gateway.session.get(url, headers=headers) as response:
        assert response.status == 401
