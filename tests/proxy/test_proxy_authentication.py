"""Who gets through: the bearer token on real sockets, by route."""

from __future__ import annotations

import aiohttp
import pytest
from support.deadlines import until
from support.protocols import both_protocols
from support.running_gateway import ADMIN_TOKEN, RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

pytestmark = both_protocols


async def get(
    gateway: RunningGateway, path: str, token: str | None = None, method: str = "GET"
) -> aiohttp.ClientResponse:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with gateway.session.request(method, gateway.url(path), headers=headers) as response:
        await response.read()
        return response


async def test_valid_token_reaches_the_upstream_with_the_callers_identity(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    await gateway.create_client("shop", client_name="Shop Åland")
    response = await get(gateway, "/api/x?y=%2F", await gateway.get_token("shop"))
    assert (response.status, await response.text()) == (200, "ok")
    (received,) = upstream.requests
    assert received.request_line == b"GET /api/x?y=%2F HTTP/1.1"
    assert received.all(b"x-client-id") == [b"shop"]
    assert received.all(b"x-client-name") == [b"Shop %C3%85land"]
    assert received.all(b"x-token-scopes") == [b"orders:read"]
    assert received.all(b"authorization") == []
    assert received.all(b"x-request-id") == [response.headers["X-Request-Id"].encode()]


async def test_missing_token_is_401_with_a_bare_challenge(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    response = await get(gateway, "/api/x")
    assert response.status == 401
    challenge = response.headers["WWW-Authenticate"]
    assert challenge.startswith("Bearer realm=")
    assert "error" not in challenge
    assert response.content_type == "application/problem+json"
    assert upstream.requests == []


async def test_unknown_token_is_401_invalid_token(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    response = await get(gateway, "/api/x", "made-up")
    assert response.status == 401
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]
    assert upstream.requests == []


async def test_token_without_the_scope_is_403_and_names_it(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    response = await get(gateway, "/api/write", await gateway.token(scope="orders:read"))
    assert response.status == 403
    challenge = response.headers["WWW-Authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="orders:write"' in challenge
    assert upstream.requests == []


async def test_verdict_is_for_the_route_and_not_for_the_token(gateway: RunningGateway) -> None:
    token = await gateway.token(scope="orders:read")
    statuses = [
        (await get(gateway, path, token)).status
        for path in ("/api/x", "/api/write", "/api/x", "/api/write")
    ]
    assert statuses == [200, 403, 200, 403]


async def test_token_of_another_client_is_no_key_to_a_clients_own_route(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(
        upstream.url,
        routes=[
            {"name": "own", "match": {"path": "/own"}, "upstream": "main", "clients": ["mine"]}
        ],
    )
    async with gateway.session.post(
        gateway.admin_url("/api/v1/clients"),
        json={"client_id": "mine", "client_secret": "secret"},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as created:
        assert created.status == 201, "an operator registers what a route names"
    mine, other = await gateway.get_token("mine"), await gateway.token("other")
    assert (await get(gateway, "/own", mine)).status == 200
    assert (await get(gateway, "/own", other)).status == 403
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer\tgood", b"Bearer: good", b"Bearer\xa0good", b"bearer=good", b"Bearer \tgood",
        b"Bearer", b"DPoP\tgood", b"DPoP: good", b"DPoP", b"DPoP a b",
    ],
)  # fmt: skip
async def test_token_that_cannot_be_read_does_not_pass_where_one_is_optional(
    start: StartGateway, upstream: RawUpstream, value: bytes
) -> None:
    gateway = await start(upstream.url)
    head = b"GET /maybe HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: %b\r\n\r\n"
    response = await gateway.send(head % value)
    assert response.startswith(b"HTTP/1.1 400"), response
    assert not upstream.requests


async def test_body_that_is_too_large_for_the_provider_is_an_oauth_error(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url)
    async with gateway.session.post(gateway.url("/token"), data=b"x" * 70_000) as response:
        assert response.status == 413
        assert (await response.json())["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([b"Authorization: Bearer good", b"Authorization: Bearer bad"], 400),
        ([b"Authorization: Bearer"], 400),
        ([b"Authorization: Bearer a b"], 400),
        ([b"Authorization: Bearer a,b"], 400),
        ([b"Authorization: Basic eDp5"], 401),
        ([b"Authorization: Bearertoken"], 401),
    ],
)
async def test_malformed_authorization_never_passes(
    gateway: RunningGateway, upstream: RawUpstream, headers: list[bytes], status: int
) -> None:
    lines = b"\r\n".join(headers)
    response = await gateway.send(
        b"GET /api/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n%b\r\n\r\n" % lines
    )
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert upstream.requests == []


async def test_token_in_query_or_body_is_ignored(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    token = await gateway.token()
    assert (await get(gateway, f"/api/x?access_token={token}")).status == 401
    async with gateway.session.post(
        gateway.url("/api/x"), data={"access_token": token}
    ) as response:
        assert response.status == 401
    assert upstream.requests == []


async def test_scheme_is_case_insensitive(gateway: RunningGateway) -> None:
    token = await gateway.token()
    headers = {"authorization": f"bEARER  {token}"}
    async with gateway.session.get(gateway.url("/api/x"), headers=headers) as response:
        assert response.status == 200


async def test_open_route_needs_no_token_and_reports_no_identity(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    token = await gateway.token()
    assert (await get(gateway, "/public/x", token)).status == 200
    (received,) = upstream.requests
    assert not {b"x-client-id", b"x-client-name", b"authorization"} & set(received.names())


async def test_optional_route_takes_requests_with_and_without_a_token_but_none_with_a_wrong_one(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    assert (await get(gateway, "/maybe")).status == 200
    assert (await get(gateway, "/maybe", await gateway.token())).status == 200
    assert (await get(gateway, "/maybe", "made-up")).status == 401
    assert [received.all(b"x-client-id") for received in upstream.requests] == [[], [b"tester"]]


async def test_forward_token_keeps_the_header(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(
        upstream.url,
        routes=[{"name": "fwd", "match": {"path": "/"}, "upstream": "main", "forward_token": True}],
    )
    token = await gateway.token()
    assert (await get(gateway, "/x", token)).status == 200
    assert upstream.requests[0].all(b"authorization") == [f"Bearer {token}".encode()]


async def test_identity_cannot_be_spoofed_on_any_route(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    spoofed = b"".join(
        b"%b: admin\r\n" % name
        for name in (b"X-Client-Id", b"x_client_id", b"X-Client_Name", b"X_TOKEN_SCOPES")
    )
    for path in (b"/public", b"/maybe"):
        await gateway.send(
            b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close, X-Client-Id\r\n%b\r\n"
            % (path, spoofed)
        )
    assert len(upstream.requests) == 2
    for received in upstream.requests:
        assert not any(value == b"admin" for _, value in received.headers)


@pytest.mark.parametrize(
    "path",
    [
        "/public/../api/x", "/public/%2e%2e/api/x", "/public/..%2fapi/x", "//api/x", "/./api/x",
        "/public/..;/api/x", "/public%5c..%5capi/x", "/%61pi/x", "/public/../api//x",
        "/public/.%2e/api/x", "/api;x/y",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_path_slips_past_auth(
    gateway: RunningGateway, upstream: RawUpstream, path: str
) -> None:
    response = await gateway.send(
        b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % path.encode()
    )
    assert response.split(b" ")[1] in {b"400", b"401", b"404"}
    assert upstream.requests == []


async def test_decisions_are_counted_by_result(gateway: RunningGateway) -> None:
    token = await gateway.token(scope="orders:read")
    for path, bearer in [("/api", None), ("/api", "nope"), ("/api/write", token), ("/api", token)]:
        await get(gateway, path, bearer)
    for result in ("missing", "unknown", "scope", "ok"):
        assert await gateway.metric("gateway_auth_decisions_total", result=result) == 1, result


async def test_deleted_clients_token_stops_at_once(gateway: RunningGateway) -> None:
    token = await gateway.token("shop")
    assert (await get(gateway, "/api", token)).status == 200
    async with gateway.session.delete(
        gateway.admin_url("/api/v1/clients/shop"),
        headers={"Authorization": "Bearer test-admin-token"},
    ) as response:
        assert response.status == 200
    assert (await get(gateway, "/api", token)).status == 401


async def test_revocation_by_another_process_reaches_the_cache(
    gateway: RunningGateway, start: StartGateway, upstream: RawUpstream
) -> None:
    other = await start(upstream.url)
    token = await gateway.token("shop")
    assert (await get(gateway, "/api", token)).status == 200
    async with other.session.delete(
        other.admin_url("/api/v1/clients/shop"),
        headers={"Authorization": "Bearer test-admin-token"},
    ) as response:
        assert response.status == 200
    await until(lambda: gateway.gateway.validator.cached(token) is None)
    assert (await get(gateway, "/api", token)).status == 401
