"""The console over plain HTTP: who gets in, what forms do, what is told to whom."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.clients.console_accounts import PASSWORD, add_admin
from support.clients.console_visitor import Visitor, signed_in
from support.deadlines import until, within
from support.processes.redis import RedisServer
from support.running_gateway import RunningGateway, StartGateway, make_config
from support.servers.raw_upstream import OK, RawUpstream

from gateway.admin.console.live import MAX_WATCHERS
from gateway.admin.console.site import is_own_path


async def audit(gateway: RunningGateway) -> list[tuple[str, str, str]]:
    admin = {"Authorization": "Bearer test-admin-token"}
    async with gateway.session.get(gateway.admin_url("/api/v1/audit"), headers=admin) as response:
        entries = (await response.json())["entries"]
    return [(entry["actor"], entry["action"], entry["target"]) for entry in entries]


async def test_there_is_no_console_until_there_is_an_admin(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    visitor = Visitor(gateway)
    for path in ("/console", "/console/sign-in", "/console/live/overview", "/console/nothing"):
        status, problem = await visitor.fetch("GET", path)
        assert (status, json.loads(problem)["reason"]) == (404, "console_off")
        assert visitor.headers["Content-Type"].startswith("application/problem+json")
        # A browser gets a page that says how to switch it on.
        status, page = await visitor.fetch("GET", path, headers={"Accept": "text/html,*/*;q=0.8"})
        assert status == 404
        assert visitor.headers["Content-Type"].startswith("text/html")
        assert "gateway admin create NAME" in page
    await add_admin(make_config(tmp_path))
    assert (await visitor.fetch("GET", "/console"))[0] == 303
    assert (await visitor.fetch("GET", "/console/sign-in"))[0] == 200
    page = await visitor.get("/console/nothing", 404)
    assert "gateway admin create" not in page


async def test_only_who_signed_in_sees_pages(gateway: RunningGateway, alice: Visitor) -> None:
    stranger = Visitor(gateway)
    for path in ("", "/routes", "/clients", "/new-client", "/tokens", "/events", "/audit",
                 "/traffic", "/traffic.csv", "/traffic/one", "/audit.csv",
                 "/overview.csv"):  # fmt: skip
        await stranger.get(f"/console{path}", 303)
        assert "/console/sign-in?next=" in stranger.headers["Location"]
        await alice.get(f"/console{path}")
    assert (await stranger.fetch("POST", "/console/clients", {"client_id": "x"}))[0] == 303
    assert (await stranger.fetch("GET", "/console/live/overview"))[0] == 204
    for path in ("/console/nothing", "/console/clients/nobody"):
        page = await alice.get(path, 404)
        assert 'aria-label="Console"' in page, "the navigation stays"
        assert 'aria-label="Console"' not in (await stranger.fetch("GET", path))[1]


async def test_session_cookie_is_for_no_other_site_and_pages_are_strict(
    gateway: RunningGateway, alice: Visitor
) -> None:
    visitor = Visitor(gateway)
    await visitor.sign_in()
    cookie = visitor.headers.getall("Set-Cookie")[0]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    await visitor.get("/console")
    policy = visitor.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert visitor.headers["Cache-Control"] == "no-store"
    text = await visitor.get("/console")
    assert "<script>" not in text
    assert not re.search(r"\s(style|on\w+)=", text)
    # Behind a proxy that speaks TLS.
    await visitor.fetch("GET", "/console/sign-in", headers={"X-Forwarded-Proto": "https"})
    names = [field.split("=")[0] for field in visitor.headers.getall("Set-Cookie")]
    assert names == ["__Host-gateway_sign_in"]
    assert "; Secure" in visitor.headers["Set-Cookie"]


async def test_wrong_password_is_refused_and_then_the_name_for_a_while(
    gateway: RunningGateway, alice: Visitor
) -> None:
    for name in ("alice", "nobody"):
        visitor = Visitor(gateway)
        statuses = [await visitor.sign_in(name, "wrong password") for _ in range(6)]
        assert statuses == [401] * 5 + [429]
        assert await visitor.sign_in(name) == 429, "also with the right one"
    text = await alice.get("/console/events?kind=login")
    assert "console sign-in failed" in text
    assert "nobody" in text
    assert "wrong password" not in text


async def test_many_right_sign_ins_from_one_address_are_no_failures(
    gateway: RunningGateway, alice: Visitor
) -> None:
    statuses = [await Visitor(gateway).sign_in("alice") for _ in range(31)]
    assert statuses == [303] * 31
    visitor = Visitor(gateway)
    failed = [await visitor.sign_in(f"user{n}", "wrong password") for n in range(31)]
    assert failed == [401] * 30 + [429]


async def test_wrong_passwords_count_at_all_gateways_on_a_store(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    await add_admin(make_config(tmp_path))
    store = f"sqlite:///{tmp_path}/gateway.db"
    visitors = [Visitor(await start(upstream.url, store=store)) for _ in range(2)]
    failed = [await visitors[number % 2].sign_in("alice", "wrong") for number in range(5)]
    assert failed == [401] * 5
    for visitor in (*visitors, Visitor(await start(upstream.url, store=store))):
        assert await visitor.sign_in("alice", PASSWORD) == 429
        assert 0 < int(visitor.headers["Retry-After"]) <= 600


async def test_form_that_is_no_text_is_400(gateway: RunningGateway, tmp_path: Path) -> None:
    await add_admin(make_config(tmp_path))
    for charset, body in (("none", b"name=a"), ("hex", b"name=a"), ("utf-8", b"name=\xff")):
        kind = {"Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}
        url = gateway.admin_url("/console/sign-in")
        async with gateway.session.post(url, data=body, headers=kind) as response:
            assert response.status == 400


async def test_form_without_its_token_or_of_another_site_changes_nothing(
    gateway: RunningGateway, alice: Visitor
) -> None:
    await alice.get("/console/new-client")
    mine = alice.token
    for token in ("", "x", mine[:-2] + "xx"):
        form = {"form_token": token, "client_id": "evil"}
        assert (await alice.fetch("POST", "/console/clients", form))[0] == 403
    form = {"form_token": mine, "client_id": "evil"}
    status, _ = await alice.fetch("POST", "/console/clients", form, {"Sec-Fetch-Site": "same-site"})
    assert status == 403
    other = Visitor(gateway)
    await other.sign_in()
    assert (await other.fetch("POST", "/console/clients", form))[0] == 403
    await alice.get("/console/clients/evil", 404)


async def test_client_is_created_renewed_rotated_and_deleted_and_all_of_it_is_written_down(
    gateway: RunningGateway, alice: Visitor
) -> None:
    await alice.get("/console/new-client")
    status, page = await alice.post(
        "/console/clients", client_id="a/b", client_name="<b>Å</b>", **{"scope:orders:read": "on"}
    )
    assert status == 200
    assert "<b>Å" not in page
    secret = re.findall(r'id="client-secret"[^>]*>([^<]+)<', page)[0]
    token = await _token(gateway, "a/b", secret)
    assert (await _use(gateway, token)) == 200
    shown = await alice.get("/console/clients/a%2Fb")
    assert secret not in shown
    assert "orders:read" in shown
    status, _ = await alice.post("/console/clients", client_id="a/b")
    assert status == 409
    assert (await alice.post("/console/clients/a%2Fb/renew"))[0] == 303
    _, page = await alice.post("/console/clients/a%2Fb/rotate")
    new_secret = re.findall(r'id="client-secret"[^>]*>([^<]+)<', page)[0]
    assert new_secret != secret
    assert (await _use(gateway, token)) == 200
    fetch = await alice.get("/console/clients/a%2Fb/delete")
    assert "<strong>1</strong> live token stops" in fetch
    assert (await alice.post("/console/clients/a%2Fb/delete"))[0] == 303
    assert (await _use(gateway, token)) == 401
    assert await audit(gateway) == [
        ("alice", "client.delete", "a/b"), ("alice", "client.rotate", "a/b"),
        ("alice", "client.renew", "a/b"), ("alice", "client.create", "a/b"),
        ("alice", "session.begin", ""),
    ]  # fmt: skip
    assert "client.rotate" in await alice.get("/console/audit")


async def _token(gateway: RunningGateway, client_id: str, secret: str) -> str:
    async with gateway.session.post(
        gateway.url("/token"),
        data={"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret},
    ) as response:
        token: str = (await response.json())["access_token"]
        return token


async def _use(gateway: RunningGateway, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url("/api/x"), headers=headers) as response:
        return response.status


async def test_token_is_reported_and_revoked_without_being_shown_or_logged(
    gateway: RunningGateway, alice: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    token = await gateway.token("shop")
    await alice.get("/console/tokens")
    status, page = await alice.post("/console/tokens", token=f" Bearer {token} ")
    assert status == 200
    assert "is live" in page
    assert token not in page
    digest = re.findall(r'name="digest" value="([0-9a-f]{64})"', page)[0]
    assert await _use(gateway, token) == 200
    status, page = await alice.post("/console/tokens/revoke", digest=digest, family="")
    assert "is revoked" in page
    assert await _use(gateway, token) == 401
    _, page = await alice.post("/console/tokens", token=token)
    assert "Unknown" in page
    assert (await alice.post("/console/tokens/revoke", digest="x", family=""))[0] == 400
    assert ("alice", "token.revoke", "shop") in await audit(gateway)
    other = await gateway.get_token("shop")
    assert (await alice.post("/console/clients/shop/revoke-tokens"))[0] == 303
    assert await _use(gateway, other) == 401
    assert token not in caplog.text


async def test_viewer_looks_but_changes_nothing(gateway: RunningGateway, tmp_path: Path) -> None:
    await add_admin(make_config(tmp_path), name="victor", role="viewer")
    await gateway.create_client("shop")
    visitor = Visitor(gateway)
    assert await visitor.sign_in("victor") == 303
    assert "New secret" not in await visitor.get("/console/clients/shop")
    for path in ("/clients", "/clients/shop/renew", "/clients/shop/delete", "/clients/shop/rotate",
                 "/clients/shop/revoke-tokens"):  # fmt: skip
        assert (await visitor.post(f"/console{path}", client_id="x"))[0] == 403
    await visitor.get("/console/clients/x", 404)


async def test_sign_out_ends_the_session_and_not_only_the_cookie(
    gateway: RunningGateway, alice: Visitor
) -> None:
    await alice.get("/console")
    kept = dict(alice.jar)
    assert (await alice.post("/console/sign-out"))[0] == 303
    assert "gateway_console" not in alice.jar
    alice.jar = kept
    await alice.get("/console", 303)


async def test_sign_in_leads_back_within_the_console_only(
    gateway: RunningGateway, alice: Visitor
) -> None:
    visitor = Visitor(gateway)
    await visitor.get("/console/clients?q=x", 303)
    await visitor.get(visitor.headers["Location"])
    fields = {"name": "alice", "password": PASSWORD}
    await visitor.post("/console/sign-in", next="/console/clients?q=x", **fields)
    assert visitor.headers["Location"] == "/console/clients?q=x"
    for path in ("https://evil.example/console", "//evil.example/console", "/console\\@evil",
                 "/consolex", "/api/v1/clients", "/console/\r\nX: y", ""):  # fmt: skip
        assert not is_own_path(path), path


async def test_clients_are_searched_and_paged(gateway: RunningGateway, alice: Visitor) -> None:
    for number in range(53):
        await gateway.create_client(f"client-{number:02}", client_name=f"Till {number}")
    first = await alice.get("/console/clients")
    assert "client-49" in first
    assert "client-50" not in first
    (more,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = await alice.get(more.replace("&amp;", "&"))
    assert re.findall(r"clients/(client-\d\d)", second) == ["client-50", "client-51", "client-52"]
    found = await alice.get("/console/clients?q=TILL+7")
    assert re.findall(r"clients/(client-\d\d)", found) == ["client-07"]
    assert "No client matches" in await alice.get("/console/clients?q=%3Cscript%3E")


async def test_use_of_a_client_is_shown(gateway: RunningGateway, alice: Visitor) -> None:
    token = await gateway.token("shop")
    assert await _use(gateway, token) == 200
    await gateway.gateway._provider.usage.flush()
    page = await alice.get("/console/clients/shop")
    assert "just now" in page
    assert re.search(r"Live tokens</h2><p class=\"value\">1<", page)
    assert re.search(r"Tokens issued</h2><p class=\"value\">1<", page)


async def test_live_parts_are_sent_as_they_change_and_streams_are_capped(
    gateway: RunningGateway, alice: Visitor
) -> None:
    cookie = "; ".join(f"{name}={value}" for name, value in alice.jar.items())
    url = gateway.admin_url("/console/live/overview")
    streams = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"Cookie": cookie}) as session:
        for _ in range(MAX_WATCHERS):
            streams.append(await session.get(url))
            assert streams[-1].status == 200
        async with session.get(url) as refused:
            assert refused.status == 503
        event = await streams[0].content.readuntil(b"\n\n")
        assert event.startswith(b"event: part\ndata: ")
        assert b"Requests per second" in event
        for stream in streams:
            stream.close()

        async def is_free() -> bool:
            async with session.get(url) as response:
                return response.status == 200

        async with within():
            while not await is_free():
                await asyncio.sleep(0.05)


async def test_refusals_and_outages_become_events(gateway: RunningGateway, alice: Visitor) -> None:
    for _ in range(3):
        async with gateway.session.get(gateway.url("/api/x")) as response:
            assert response.status == 401
    recent = gateway.gateway._admin.recent
    await until(lambda: sum(event.count for event in recent.events.newest("refusal")) >= 3)
    page = await alice.get("/console/events?kind=refusal")
    assert "missing" in page
    assert "127.0.0.1" in page


async def test_routes_report_what_the_router_goes_by(alice: Visitor) -> None:
    page = await alice.get("/console/routes")
    assert re.findall(r'scope="row"><a [^>]+>(\w+)<', page) == ["write", "public", "maybe", "api"]
    assert "http://127.0.0.1" in page


async def test_request_is_tried_without_being_sent(
    gateway: RunningGateway, upstream: RawUpstream, alice: Visitor
) -> None:
    await alice.get("/console/routes")
    fields = {"method": "get", "url": "/api/write/7?a=b", "headers": "Cookie: id=hush\nX-One: 1"}
    status, page = await alice.post("/console/routes", **fields)
    assert status == 200
    assert "Route <strong>write</strong>" in page
    assert "orders:write" in page
    head = page.partition("Request to the upstream")[2]
    assert "X-One: 1" in head
    assert "hush" not in head
    status, page = await alice.post("/console/routes", url="/nowhere")
    assert "<strong>404</strong>" in page
    for wrong in ({"url": "nowhere"}, {"url": "/", "headers": "x"}):
        status, page = await alice.post("/console/routes", **wrong)
        assert (status, 'role="alert"' in page) == (400, True), wrong
    status, reported = await call(
        gateway, "POST", "/api/v1/explain", "test-admin-token",
        {"method": "POST", "url": "/api/write", "headers": {"X-One": "1"}},
    )  # fmt: skip
    assert (status, reported["route"]["name"]) == (200, "write")
    assert upstream.requests == []


async def test_console_says_so_where_the_store_does_not_respond(
    start: StartGateway, upstream: RawUpstream, redis_server: RedisServer, tmp_path: Path
) -> None:
    gateway = await start(upstream.url, store=redis_server.url)
    await add_admin(make_config(tmp_path, store=redis_server.url))
    visitor = Visitor(gateway)
    assert await visitor.sign_in() == 303
    await visitor.get("/console")
    redis_server.stop()
    assert "does not respond" in await visitor.get("/console", 503)
    recent = gateway.gateway._admin.recent
    await until(lambda: any(recent.events.newest("store")))


async def call(
    gateway: RunningGateway, method: str, path: str, token: str, body: Any = None
) -> tuple[int, Any]:
    async with gateway.session.request(
        method, gateway.admin_url(path), json=body, headers={"Authorization": f"Bearer {token}"}
    ) as response:
        return response.status, json.loads(await response.text())


async def test_api_takes_tokens_of_the_command_line_by_their_role(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    gateway = await start(upstream.url, admin={"token": None})
    status, problem = await call(gateway, "GET", "/api/v1/clients", "x")
    assert (status, problem["reason"]) == (403, "admin_api_off")
    accounts = gateway.gateway._admin.accounts
    viewer, _ = await accounts.tokens.create("watcher", "viewer", ttl_s=60)
    operator, _ = await accounts.tokens.create("ci", "operator", ttl_s=60)
    assert (await call(gateway, "GET", "/api/v1/clients", "x"))[0] == 401
    assert (await call(gateway, "GET", "/api/v1/clients", viewer))[0] == 200
    status, problem = await call(gateway, "POST", "/api/v1/clients", viewer, {"client_id": "shop"})
    assert (status, problem["reason"]) == (403, "role")
    assert (await call(gateway, "POST", "/api/v1/clients", operator, {"client_id": "shop"}))[
        0
    ] == 201
    status, usage = await call(gateway, "GET", "/api/v1/clients/shop/usage", viewer)
    assert usage == {
        "client_id": "shop", "live_tokens": 0, "tokens_issued": 0, "last_used": None
    }  # fmt: skip
    status, done = await call(gateway, "POST", "/api/v1/clients/shop/revoke-tokens", operator)
    assert done == {"client_id": "shop", "tokens_revoked": 0}
    status, page = await call(gateway, "GET", "/api/v1/clients?q=SHO", viewer)
    assert [client["client_id"] for client in page["clients"]] == ["shop"]
    status, page = await call(gateway, "GET", "/api/v1/audit?limit=1", viewer)
    assert page["entries"][0]["actor"] == "token ci"
    assert (await call(gateway, "GET", f"/api/v1/audit?after={page['next']}", viewer))[0] == 200
    for path, member in (
        ("overview", "requests_per_second"), ("routes", "routes"), ("upstreams", "upstreams"),
        ("events", "events"),
    ):  # fmt: skip
        status, reported = await call(gateway, "GET", f"/api/v1/{path}", viewer)
        assert status == 200
        assert member in reported
    await accounts.tokens.revoke("watcher")
    assert (await call(gateway, "GET", "/api/v1/clients", viewer))[0] == 401


async def test_client_of_a_browser_app_is_created_with_its_redirect_uris(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    gateway = await start(
        upstream.url,
        provider={"grant_types": ["client_credentials", "authorization_code"]},
    )  # fmt: skip
    alice = await signed_in(gateway, tmp_path)
    page = await alice.get("/console/new-client")
    assert 'name="grant:authorization_code"' in page
    form = {"client_id": "app", "grant:authorization_code": "on",
            "token_endpoint_auth_method": "none"}  # fmt: skip
    status, page = await alice.post("/console/clients", **form, redirect_uris="nonsense")
    assert status == 400
    assert "nonsense" in page, "what was typed stays"
    uris = "https://a.example/cb\r\nhttp://127.0.0.1/cb"
    status, page = await alice.post("/console/clients", **form, redirect_uris=uris)
    assert status == 200
    assert "client-secret" not in page
    shown = await alice.get("/console/clients/app")
    assert "authorization_code" in shown
    admin = {"Authorization": "Bearer test-admin-token"}
    url = gateway.admin_url("/api/v1/clients/app")
    async with gateway.session.get(url, headers=admin) as response:
        assert (await response.json())["redirect_uris"] == uris.split()


async def test_target_that_fails_is_shown_as_failing_with_its_last_error(
    start: StartGateway, unused_tcp_port: int, tmp_path: Path, upstream: RawUpstream
) -> None:
    nowhere = f"http://127.0.0.1:{unused_tcp_port}"
    gateway = await start(
        nowhere, upstreams={"main": {"retries": {"attempts": 0}, "targets": [nowhere]},
                            "bad": {"targets": [upstream.url]}},
        routes=[
            {"name": name, "match": {"path": f"/{name}"}, "upstream": name, "auth": "none"}
            for name in ("main", "bad")
        ],
    )  # fmt: skip
    upstream.respond = lambda received: b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
    alice = await signed_in(gateway, tmp_path)
    assert "failing" not in await alice.get("/console/routes")
    for _ in range(4):
        for path in ("/main", "/bad"):
            async with gateway.session.get(gateway.url(path)) as response:
                assert response.status in {500, 502}
    page = await alice.get("/console/routes")
    assert page.count("failing</span>") >= 1
    assert "4 failed in a row, last: status 500" in page
    assert "reasons#upstream_connect_failed" in page
    upstream.respond = lambda received: OK
    async with gateway.session.get(gateway.url("/bad")) as response:
        assert response.status == 200
    assert "status 500" not in await alice.get("/console/routes")
