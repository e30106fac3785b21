"""The admin listener of a running gateway: metrics, health, and the API."""

from __future__ import annotations

import asyncio
import gzip
import logging
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.deadlines import within
from support.running_gateway import ADMIN_TOKEN, RawClient, RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream
from support.stores.faults import break_store, mend_store

from gateway.http.errors import PROBLEM_TYPES

AUTH = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        (None, False),
        ("*/*", False),
        ("text/plain", False),
        ("application/*", False),
        ("application/openmetrics-text", True),
        ("APPLICATION/OPENMETRICS-TEXT; Version=1.0.0", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text; q=0.0, */*", False),
        ("text/plain;q=1, application/openmetrics-text;q=0.1", False),
        ("text/plain;q=0.1, application/openmetrics-text;q=0.2", True),
        ("application/openmetrics-text;q=nonsense", False),
        ("application/openmetrics-text-x", False),
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1"
         ";q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
    ],
)  # fmt: skip
async def test_format_of_metrics_is_what_accept_says(
    gateway: RunningGateway, accept: str | None, is_openmetrics: bool
) -> None:
    headers = {"Accept-Encoding": "identity"} | ({"Accept": accept} if accept else {})
    url = gateway.admin_url("/metrics?name[]=gateway_connections")
    skipped = ("Accept",) if accept is None else ()
    async with gateway.session.get(url, headers=headers, skip_auto_headers=skipped) as response:
        kind = response.headers["Content-Type"].partition(";")[0]
        text = await response.text()
    assert kind == ("application/openmetrics-text" if is_openmetrics else "text/plain")
    assert text.endswith("# EOF\n") is is_openmetrics


async def test_metrics_are_compressed_for_who_can_read_it(gateway: RunningGateway) -> None:
    url = gateway.admin_url("/metrics")
    for accepted, coding in (("gzip", "gzip"), ("br, GZIP;q=0.5", "gzip"), ("gzip;q=0", None)):
        headers = {"Accept-Encoding": accepted}
        async with gateway.session.get(url, headers=headers) as response:
            assert response.headers.get("Content-Encoding") == coding
            assert response.headers["Vary"] == "Accept, Accept-Encoding"
            body = await response.read()
        page = gzip.decompress(body) if coding else body
        assert page.startswith(b"# HELP")


async def test_metrics_can_be_asked_for_by_name(gateway: RunningGateway) -> None:
    url = gateway.admin_url(
        "/metrics?name[]=gateway_connections&name[]=gateway_auth_decisions_total"
        "&name[]=gateway_store_operation_seconds&name[]=nonsense"
    )
    async with gateway.session.get(url, headers={"Accept-Encoding": "identity"}) as response:
        text = await response.text()
    families = {family.name for family in text_string_to_metric_families(text)}
    assert families == {
        "gateway_connections", "gateway_auth_decisions", "gateway_store_operation_seconds",
    }  # fmt: skip


async def test_metrics_are_in_the_exposition_format(gateway: RunningGateway) -> None:
    text = await gateway.metrics()
    for name in (
        "gateway_requests_total", "gateway_request_duration_seconds",
        "gateway_upstream_duration_seconds", "gateway_auth_decisions_total",
        "gateway_token_cache_lookups_total", "gateway_token_cache_entries",
        "gateway_store_operation_seconds", "gateway_store_up", "gateway_tokens_issued_total",
        "gateway_upstream_target_up", "gateway_upstream_connections",
        "gateway_config_reloads_total", "gateway_config_hash_info", "gateway_inflight_requests",
        "gateway_event_loop_lag_seconds", "gateway_event_loop_tasks", "gateway_clients_expiring",
        "process_open_fds",
    ):  # fmt: skip
        assert f"# TYPE {name.removesuffix('_total')}" in text.replace("_total ", " "), name


async def test_health_and_readiness_are_reported(gateway: RunningGateway) -> None:
    assert await gateway.call_api("GET", "/healthz") == (200, {"status": "ok"})
    status, body = await gateway.call_api("GET", "/readyz")
    assert (status, body["status"]) == (200, "ready")
    assert body["checks"] == {"config": "ok", "store": "ok", "draining": "ok"}


async def test_readiness_goes_down_with_the_store_and_health_does_not(
    gateway: RunningGateway,
) -> None:
    break_store(gateway.directory / "gateway.db")
    status, body = await gateway.call_api("GET", "/readyz")
    assert (status, body["checks"]["store"]) == (503, "unavailable")
    assert (await gateway.call_api("GET", "/healthz"))[0] == 200
    assert await gateway.metric("gateway_store_up") == 0
    mend_store(gateway.directory / "gateway.db")
    assert (await gateway.call_api("GET", "/readyz"))[0] == 200
    assert await gateway.metric("gateway_store_up") == 1


async def test_token_is_inspected_and_revoked(gateway: RunningGateway) -> None:
    token = await gateway.token("shop")
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url("/api/x"), headers=headers) as response:
        assert response.status == 200
    _, inspected = await gateway.call_api("POST", "/api/v1/tokens/inspect", {"token": token})
    assert (inspected["active"], inspected["client_id"]) == (True, "shop")
    assert inspected["exp"] - inspected["iat"] == 3600
    revoke = ("POST", "/api/v1/tokens/revoke", {"token": token})
    assert await gateway.call_api(*revoke) == (200, {"revoked": True})
    assert await gateway.call_api(*revoke) == (200, {"revoked": False})
    async with gateway.session.get(gateway.url("/api/x"), headers=headers) as response:
        assert response.status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/clients/nobody"),
        ("DELETE", "/api/v1/clients/nobody"),
        ("POST", "/api/v1/clients/nobody/renew"),
        ("POST", "/api/v1/clients/nobody/rotate"),
        ("DELETE", "/api/v1/clients/nobody/previous-secret"),
        ("GET", "/nowhere"),
    ],
)
async def test_what_is_not_there_is_404(gateway: RunningGateway, method: str, path: str) -> None:
    status, problem = await gateway.call_api(method, path)
    assert (status, problem["status"]) == (404, 404)
    assert problem["type"] == f"{PROBLEM_TYPES}{problem['reason']}"


async def test_other_methods_are_405(gateway: RunningGateway) -> None:
    async with gateway.session.put(gateway.admin_url("/api/v1/clients"), headers=AUTH) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET,POST"
        assert (await response.json(content_type=None))["reason"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "token"),
        ({"token": 1}, "token"),
        ({"token": "\ud800"}, "body"),
        ([], "body"),
    ],
)
async def test_body_that_is_not_understood_is_400(
    gateway: RunningGateway, body: Any, reason: str
) -> None:
    status, problem = await gateway.call_api("POST", "/api/v1/tokens/inspect", body)
    assert (status, problem["reason"]) == (400, reason)


async def test_flag_must_be_a_flag_and_metadata_must_be_usable(gateway: RunningGateway) -> None:
    path = "/api/v1/clients"
    assert (await gateway.call_api("POST", path, {"replace": "yes"}))[1]["reason"] == "replace"
    status, problem = await gateway.call_api("POST", path, {"client_id": "a b"})
    assert (status, problem["reason"]) == (400, "invalid_client_metadata")


async def test_only_json_is_taken_so_that_no_web_page_can_send_it(gateway: RunningGateway) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        async with gateway.session.post(
            gateway.admin_url("/api/v1/clients"),
            data='{"client_id": "evil"}',
            headers=AUTH | {"Content-Type": content_type},
        ) as response:
            assert response.status == 415
    async with gateway.session.post(
        gateway.admin_url("/api/v1/clients"),
        data="{",
        headers=AUTH | {"Content-Type": "application/json"},
    ) as response:
        assert response.status == 400


@pytest.mark.parametrize(
    "header",
    [None, "Bearer wrong", f"Basic {ADMIN_TOKEN}", ADMIN_TOKEN, "Bearer"],
)
async def test_api_needs_its_token(gateway: RunningGateway, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with gateway.session.get(
        gateway.admin_url("/api/v1/clients"), headers=headers
    ) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")
        assert response.content_type == "application/problem+json"


async def test_guesses_of_the_token_are_limited_and_a_token_in_use_is_not(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, trusted_proxies=["127.0.0.1/32"])

    async def call(token: str, source: str) -> int:
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": source}
        async with gateway.session.get(
            gateway.admin_url("/api/v1/clients"), headers=headers
        ) as response:
            if response.status == 429:
                assert 0 < int(response.headers["Retry-After"]) <= 600
                assert (await response.json(content_type=None))["reason"] == "too_many_attempts"
            return response.status

    assert await call(ADMIN_TOKEN, "192.0.2.1") == 200
    outdated = [await call("outdated", "192.0.2.1") for _ in range(20)]
    assert set(outdated) == {401}, "one token, however often it comes, is one guess"
    guesses = [await call(f"guess-{number}", "192.0.2.1") for number in range(12)]
    assert guesses == [401] * 9 + [429] * 3
    assert await call(ADMIN_TOKEN, "192.0.2.1") == 200, "it was right there lately"
    for number in range(10):
        await call(f"guess-{number}", "192.0.2.2")
    assert await call(ADMIN_TOKEN, "192.0.2.2") == 429, "nobody learns that it is right"
    assert await call(ADMIN_TOKEN, "192.0.2.3") == 200


async def test_api_is_off_without_a_token_in_the_configuration(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, admin={"token": None})
    status, problem = await gateway.call_api("GET", "/api/v1/clients")
    assert (status, problem["reason"]) == (403, "admin_api_off")
    assert "admin.token" in problem["detail"]
    assert (await gateway.call_api("GET", "/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"{", "application/json", 400),
        (b'{"client_id": "\xff"}', "application/json", 400),
        (b'{"a": ' + b"[" * 60_000, "application/json", 400),
        ("{}".encode("utf-16"), "application/json; charset=utf-16", 400),
        (b'{"client_id": "' + b"a" * 70_000 + b'"}', "application/json", 413),
        (b'{"client_id": "shop"}', "application/json; charset=nonsense", 201),
    ],
)
async def test_body_is_json_in_utf_8_of_a_modest_size(
    gateway: RunningGateway, body: bytes, content_type: str, expected: int
) -> None:
    async with gateway.session.post(
        gateway.admin_url("/api/v1/clients"),
        data=body,
        headers=AUTH | {"Content-Type": content_type},
    ) as response:
        assert response.status == expected
        if expected != 201:
            assert response.content_type == "application/problem+json"


async def test_versions_of_the_software_are_not_reported(gateway: RunningGateway) -> None:
    async with gateway.session.get(gateway.admin_url("/healthz")) as response:
        assert response.headers["Server"] == "gateway"


async def test_token_in_bytes_that_are_no_text_is_refused_as_any_other(
    gateway: RunningGateway,
) -> None:
    reader, writer = await asyncio.open_connection(*gateway.gateway.admin_address)
    client = RawClient(reader, writer)
    await client.send(
        b"GET /api/v1/clients HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n"
    )
    response = await client.read_response()
    await client.close()
    assert response.status == 401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/api/v1/clients/shop", None),
        ("POST", "/api/v1/clients/shop/rotate", {"revoke_tokens": True}),
        ("POST", "/api/v1/clients", {"client_id": "shop", "replace": True}),
    ],
)
async def test_cached_token_stops_with_the_response_that_says_so(
    gateway: RunningGateway, method: str, path: str, body: Any
) -> None:
    headers = {"Authorization": f"Bearer {await gateway.token('shop')}"}
    # Without it, the process does not hear of changes by asking the store.
    await gateway.gateway.process_tasks.stop()
    async with gateway.session.get(gateway.url("/api/x"), headers=headers) as response:
        assert response.status == 200
    assert (await gateway.call_api(method, path, body))[0] in {200, 201}
    async with gateway.session.get(gateway.url("/api/x"), headers=headers) as response:
        assert response.status == 401


async def test_store_that_does_not_respond_is_503(gateway: RunningGateway) -> None:
    break_store(gateway.directory / "gateway.db")
    for method, path in (("GET", "/api/v1/clients"), ("DELETE", "/api/v1/clients/shop")):
        async with gateway.session.request(
            method, gateway.admin_url(path), headers=AUTH
        ) as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
            assert response.content_type == "application/problem+json"


async def test_request_that_cannot_be_parsed_leaves_nothing_of_itself_in_the_log(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.admin_address[1])
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: canary-4711\0\r\n\r\n")
    async with within():
        assert b" 400 " in await reader.readline()
    writer.transport.abort()
    assert "canary-4711" not in caplog.text


async def test_log_level_is_reported_and_changed_while_the_gateway_runs(
    gateway: RunningGateway,
) -> None:
    url = gateway.admin_url("/api/v1/log-level")
    admin = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    root = logging.getLogger()
    before = root.level
    try:
        async with gateway.session.put(url, json={"level": "DEBUG"}, headers=admin) as response:
            assert (response.status, await response.json()) == (200, {"level": "DEBUG"})
        assert root.level == logging.DEBUG
        async with gateway.session.get(url, headers=admin) as response:
            assert await response.json() == {"level": "DEBUG"}
        for body in ({"level": "LOUD"}, {"level": 10}, {}):
            async with gateway.session.put(url, json=body, headers=admin) as response:
                assert response.status == 400
        async with gateway.session.put(url, json={"level": "ERROR"}) as response:
            assert response.status == 401
        assert root.level == logging.DEBUG
    finally:
        root.setLevel(before)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421), ("evil.example:9090", 421), ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421), ("10.0.0.7", 421), ("a b", 421), ("", 421),
        ("localhost:9090", 200), ("LOCALHOST", 200), ("127.0.0.1", 200), ("127.8.8.8:1", 200),
        ("[::1]:9090", 200), ("ops.example", 200), ("OPS.example.:9090", 200),
    ],
)  # fmt: skip
async def test_listener_on_loopback_takes_only_its_own_names_in_host(
    start: StartGateway, host: str, status: int
) -> None:
    gateway = await start("http://127.0.0.1:9", admin={"hosts": ["ops.example"]})
    for path in ("/metrics", "/console", "/healthz", "/none"):
        client = await gateway.connect_to(gateway.gateway.admin_address)
        await client.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        response = await client.read_response()
        assert (response.status == 421) == (status == 421), path
        if status == 421:
            assert b'"reason": "admin_host"' in response.body
        await client.close()


async def test_second_host_does_not_make_up_for_the_first(gateway: RunningGateway) -> None:
    client = await gateway.connect_to(gateway.gateway.admin_address)
    await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert (await client.read_response()).status in {400, 421}
