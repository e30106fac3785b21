"""One process takes over another configuration: what changes, what lives on, what is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.config_file import edit, replace, route
from support.deadlines import until, within
from support.running_gateway import ADMIN_TOKEN, RunningGateway, basic, make_config
from support.servers.raw_upstream import OK, Conversation, RawUpstream

from gateway.app.gateway import Gateway
from gateway.app.reloading.changes import NEEDS_RESTART
from gateway.config import Config, load
from gateway.reloads import Reload

Tree = dict[str, Any]
StartFromFile = Callable[..., Awaitable[RunningGateway]]
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
RELOADED = {
    "listen", "admin", "authz", "ready_without_store", "provider", "jwt_issuers",
    "introspection_servers", "maintenance", "rate_limit", "cache", "shutdown", "reload",
    "trusted_proxies", "upstreams", "routes", "clients", "clients_dir", "clients_owner",
    "workloads", "identity_assertions",
}  # fmt: skip
"""The sections that a running gateway takes over, but for the keys of `NEEDS_RESTART`."""


@pytest.fixture
async def start_from_file(tmp_path: Path) -> AsyncIterator[StartFromFile]:
    """Starts gateways from `gateway.yaml`, which nobody watches."""
    running: list[RunningGateway] = []
    async with aiohttp.ClientSession() as session:

        async def start(upstream_url: str, **sections: Any) -> RunningGateway:
            path = tmp_path / "gateway.yaml"
            sections = {"reload": {"watch": False}} | sections
            path.write_text(make_config(tmp_path, upstream_url, **sections))
            loaded = load(path)
            gateway = Gateway(loaded.config, loaded=loaded)
            await gateway.start()
            running.append(RunningGateway(gateway, tmp_path, session))
            return running[-1]

        yield start
        for one in running:
            await one.stop()


@pytest.fixture
async def gateway(start_from_file: StartFromFile, upstream: RawUpstream) -> RunningGateway:
    return await start_from_file(upstream.url)


async def reload(gateway: RunningGateway, change: Callable[[Tree], object]) -> Reload:
    """Change the file and have it loaded."""
    edit(gateway.directory / "gateway.yaml", change)
    assert gateway.gateway.reloader is not None
    return await gateway.gateway.reloader.reload("signal")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def status(gateway: RunningGateway, path: str, token: str = "") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with gateway.session.get(gateway.url(path), headers=headers) as response:
        await response.read()
        return response.status


async def test_new_route_serves_and_a_removed_one_is_gone(gateway: RunningGateway) -> None:
    assert await status(gateway, "/fresh") == 404

    def change(config: Tree) -> None:
        config["routes"] = [route("fresh"), *config["routes"][1:]]

    done = await reload(gateway, change)
    assert (done.result, done.problems) == ("ok", ())
    assert await status(gateway, "/fresh") == 200
    assert await status(gateway, "/public") == 404


async def test_reload_is_counted_and_the_hash_is_that_of_what_serves(
    gateway: RunningGateway,
) -> None:
    assert await gateway.metric("gateway_config_reloads_total", result="ok") == 0
    before = await gateway.metric("gateway_config_last_reload_success_timestamp_seconds")
    done = await reload(gateway, lambda config: config.update(cache={"ttl": "5s"}))
    assert await gateway.metric("gateway_config_reloads_total", result="ok") == 1
    assert await gateway.metric("gateway_config_reloads_total", result="error") == 0
    assert await gateway.metric("gateway_config_last_reload_successful") == 1
    assert await gateway.metric("gateway_config_hash_info", hash=done.config_hash) == 1
    after = await gateway.metric("gateway_config_last_reload_success_timestamp_seconds")
    assert after > before


async def test_bad_file_is_refused_with_its_problems_and_the_old_one_serves(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def change(config: Tree) -> None:
        config["routes"].append(route("lost", "nowhere"))
        config["lisen"] = {}

    refused = await reload(gateway, change)
    assert refused.result == "error"
    assert [problem.split(": ")[1] for problem in refused.problems] == [
        "routes[4].upstream", "lisen"
    ]  # fmt: skip
    assert all(":" in problem.removeprefix(str(gateway.directory)) for problem in refused.problems)
    (logged,) = [line for line in messages(caplog) if "rejected" in line]
    assert "there is no upstream 'nowhere'" in logged
    assert "lisen" in logged
    assert "\n" not in logged
    assert await status(gateway, "/public") == 200
    assert await gateway.metric("gateway_config_reloads_total", result="error") == 1
    assert await gateway.metric("gateway_config_last_reload_successful") == 0


async def test_what_was_added_removed_or_renamed_is_one_change_each(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def change(config: Tree) -> None:
        config["routes"][0]["name"] = "renamed"
        config["upstreams"]["spare"] = {"targets": ["http://127.0.0.1:9"], "dns": {"refresh": "9s"}}

    done = await reload(gateway, change)
    changes = {"upstreams.spare: added", "routes[public]: removed", "routes[renamed]: added"}
    assert {str(one) for one in done.changes} == changes
    (logged,) = [line for line in messages(caplog) if "reload (signal): ok" in line]
    assert all(one in logged for one in changes)
    done = await reload(gateway, lambda config: config["upstreams"].pop("spare"))
    assert [str(one) for one in done.changes] == ["upstreams.spare: removed"]


async def test_file_that_is_gone_or_no_yaml_is_refused(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    reloader = gateway.gateway.reloader
    assert reloader is not None
    path = gateway.directory / "gateway.yaml"
    text = path.read_text()
    replace(path, "routes: [")
    assert "not valid YAML" in (await reloader.reload("signal")).problems[0]
    path.unlink()
    assert "can't be read" in (await reloader.reload("signal")).problems[0]
    assert not any("\n" in line for line in messages(caplog))
    path.write_text(text)
    assert (await reloader.reload("signal")).result == "ok"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("listen", "port", 9), ("admin", "host", "::1"), ("", "workers", 3),
     ("", "store", "redis://:secret@10.0.0.1"), ("access_log", "path", "off"),
     ("listen", "tls", {"cert": "c.pem", "key": "k.pem"}), ("listen", "unix", {"path": "/g.sock"})],
)  # fmt: skip
async def test_key_that_needs_a_restart_refuses_the_whole_reload(
    gateway: RunningGateway, section: str, key: str, value: object
) -> None:
    def change(config: Tree) -> None:
        config["routes"].append(route("fresh"))
        (config[section] if section else config)[key] = value

    refused = await reload(gateway, change)
    (problem,) = refused.problems
    name = f"{section}.{key}".strip(".")
    assert f": {'access_log' if section == 'access_log' else name}: can't change" in problem
    assert "secret" not in problem
    assert await status(gateway, "/fresh") == 404


async def test_request_in_flight_ends_under_the_configuration_it_began_with(
    start_from_file: StartFromFile,
) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        arrived.set()
        await go.wait()
        await conversation.send(OK)

    async with RawUpstream(script=hold) as old, RawUpstream() as new:
        gateway = await start_from_file(old.url)
        decision_clients = asyncio.create_task(status(gateway, "/public/x"))
        await arrived.wait()

        def change(config: Tree) -> None:
            config["upstreams"] = {"other": {"targets": [new.url]}}
            config["routes"] = [route("fresh", "other")]

        assert (await reload(gateway, change)).result == "ok"
        assert await status(gateway, "/fresh") == 200
        assert await status(gateway, "/public/x") == 404
        go.set()
        assert await decision_clients == 200
        await until(lambda: old.open_connections == 0)
    # It is counted for the route that it took, which is gone only after the next reload.
    labels = {"route": "public", "method": "GET", "code": "200", "source": "upstream"}
    assert await gateway.metric("gateway_requests_total", **labels) == 1
    await reload(gateway, lambda config: None)
    assert await gateway.metric("gateway_requests_total", **labels) == 0


async def test_upstream_that_is_the_same_keeps_its_connections(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    assert await status(gateway, "/public") == 200
    assert (await reload(gateway, lambda config: config["routes"].pop())).changes
    assert await status(gateway, "/public") == 200
    assert upstream.connections == 1

    def change(config: Tree) -> None:
        config["upstreams"]["main"]["timeouts"] = {"idle": "7s"}

    await reload(gateway, change)
    await until(lambda: upstream.open_connections == 0)
    assert await status(gateway, "/public") == 200
    assert upstream.connections == 2


async def test_client_that_a_route_no_longer_takes_is_refused_at_once_with_a_cached_token(
    start_from_file: StartFromFile, upstream: RawUpstream
) -> None:
    gateway = await start_from_file(upstream.url)
    token = await gateway.token("shop")
    raw = await gateway.connect()
    request = f"GET /api/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    await raw.send(request)
    assert (await raw.read_response()).status == 200

    def change(config: Tree) -> None:
        config["routes"][2]["clients"] = ["another"]

    await reload(gateway, change)
    hits = await gateway.metric("gateway_token_cache_lookups_total", result="hit")
    await raw.send(request)
    assert (await raw.read_response()).status == 403
    assert await gateway.metric("gateway_token_cache_lookups_total", result="hit") == hits + 1


async def test_provider_goes_by_its_new_rules(gateway: RunningGateway) -> None:
    token = await gateway.token("shop")

    def change(config: Tree) -> None:
        provider = config["provider"]
        provider |= {"token_path": "/oauth/token", "token_ttl": "90s", "scopes": ["orders:read"]}
        provider["registration"]["token"] = "another-token"
        config["routes"].pop()

    assert (await reload(gateway, change)).result == "ok"
    assert await status(gateway, "/token") == 404
    async with gateway.session.post(
        gateway.url("/oauth/token"),
        data={"grant_type": "client_credentials"},
        headers=basic("shop", "secret"),
    ) as response:
        assert (await response.json())["expires_in"] == 90
    async with gateway.session.post(
        gateway.url("/createClient"),
        json={"client_id": "late"},
        headers={"Authorization": "Bearer test-registration-token"},
    ) as response:
        assert response.status == 401
    assert await status(gateway, "/api/x", token) == 200


async def test_rate_limit_that_was_used_up_stays_so(
    start_from_file: StartFromFile, upstream: RawUpstream
) -> None:
    limit = {"requests": 1, "per": "1h"}
    gateway = await start_from_file(upstream.url, rate_limit=limit)
    assert await status(gateway, "/public") == 200
    await reload(gateway, lambda config: config["routes"].pop())
    assert await status(gateway, "/public") == 429
    await reload(gateway, lambda config: config.pop("rate_limit"))
    assert await status(gateway, "/public") == 200


async def test_trust_in_proxies_changes_for_open_connections_too(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    raw = await gateway.connect()
    request = b"GET /public HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
    await raw.send(request)
    await raw.read_response()
    await reload(gateway, lambda config: config.update(trusted_proxies=["127.0.0.0/8"]))
    await raw.send(request)
    await raw.read_response()
    first, second = (received.all(b"x-forwarded-for") for received in upstream.requests)
    assert (first, second) == ([b"127.0.0.1"], [b"192.0.2.7, 127.0.0.1"])


async def test_admin_api_reloads_and_lists_what_was_reloaded(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = gateway.directory / "gateway.yaml"

    def change(config: Tree) -> None:
        config["routes"][2]["clients"] = ["shop"]
        config["provider"]["registration"]["token"] = "a-new-secret"

    async def fetch() -> tuple[int, Tree]:
        url = gateway.admin_url("/api/v1/reload")
        async with gateway.session.post(url, headers=ADMIN) as response:
            return response.status, await response.json()

    edit(path, change)
    reply = await fetch()
    assert reply[0] == 200
    assert reply[1]["changes"] == [
        {"key": "provider.registration.token", "before": "***", "after": "***"},
        {"key": "routes[api].clients", "before": "[]", "after": '["shop"]'},
    ]
    edit(path, lambda config: config.update(workers=2))
    reply = await fetch()
    assert (reply[0], reply[1]["result"]) == (422, "error")
    assert "workers: can't change while the gateway runs" in reply[1]["problems"][0]
    async with gateway.session.get(gateway.admin_url("/api/v1/reloads"), headers=ADMIN) as response:
        recent = (await response.json())["reloads"]
    assert [one["result"] for one in recent] == ["error", "ok"]
    assert [one["trigger"] for one in recent] == ["api", "api"]
    async with gateway.session.post(gateway.admin_url("/api/v1/reload")) as response:
        assert response.status == 401
    assert 'routes[api].clients: [] -> ["shop"]' in caplog.text
    assert "a-new-secret" not in caplog.text


async def test_admin_token_changes_with_the_file(gateway: RunningGateway) -> None:
    await reload(gateway, lambda config: config["admin"].update(token="rotated"))
    url = gateway.admin_url("/api/v1/clients")
    async with gateway.session.get(url, headers=ADMIN) as response:
        assert response.status == 401
    async with gateway.session.get(url, headers={"Authorization": "Bearer rotated"}) as response:
        assert response.status == 200


async def test_gateway_that_has_no_file_says_so(
    tmp_path: Path, upstream: RawUpstream, start: Callable[..., Awaitable[RunningGateway]]
) -> None:
    gateway = await start(upstream.url)
    url = gateway.admin_url("/api/v1/reload")
    async with gateway.session.post(url, headers=ADMIN) as response:
        assert (response.status, (await response.json())["reason"]) == (409, "no_file")


async def test_certificate_that_does_not_fit_is_refused_and_reported_by_its_key(
    gateway: RunningGateway,
) -> None:
    def change(config: Tree) -> None:
        config["upstreams"]["main"]["tls"] = {"ca": str(gateway.directory / "none.pem")}

    (problem,) = (await reload(gateway, change)).problems
    assert "upstreams.main.tls.ca: " in problem
    assert "none.pem can't be read: No such file or directory" in problem
    (gateway.directory / "none.pem").write_text("no certificate")
    (problem,) = (await reload(gateway, lambda config: None)).problems
    assert "yaml:25: upstreams.main.tls: " in problem
    assert "none.pem: expected certificates in PEM" in problem
    assert await status(gateway, "/public") == 200


def test_each_section_of_the_configuration_is_taken_over_or_refused() -> None:
    assert set(Config.model_fields) == RELOADED | {path[0] for path in NEEDS_RESTART}


async def test_what_is_known_of_endpoints_outlives_a_change_of_their_settings(
    start_from_file: StartFromFile, upstream: RawUpstream
) -> None:
    check = {"path": "/h", "interval": "1h", "unhealthy_threshold": 1}
    settings = {"targets": [upstream.url, "http://127.0.0.1:1"], "health_check": check}
    gateway = await start_from_file(upstream.url, upstreams={"main": settings})

    async def up() -> list[float]:
        name = "gateway_upstream_target_up"
        return [
            await gateway.metric(name, upstream="main", target=target)
            for target in settings["targets"]
        ]

    await until(lambda: bool(upstream.requests))
    async with within():
        while await up() != [1.0, 0.0]:
            await asyncio.sleep(0.01)
    asked = len(upstream.requests)

    def change(tree: Tree) -> None:
        tree["upstreams"]["main"]["health_check"]["unhealthy_threshold"] = 9

    assert (await reload(gateway, change)).result == "ok"
    assert await up() == [1.0, 0.0]
    await until(lambda: len(upstream.requests) > asked)  # the new checks have begun
    for _ in range(4):
        assert await status(gateway, "/public") == 200
    assert await up() == [1.0, 0.0]


async def test_rule_on_a_claim_that_a_reload_brings_holds_for_cached_tokens(
    gateway: RunningGateway,
) -> None:
    """Kept of a token is what rules name: those in the cache have nothing for a new one."""
    token = await gateway.token("shop")
    assert await status(gateway, "/api", token) == 200

    def allow(client: str) -> Callable[[Tree], object]:
        return lambda tree: tree["routes"][2].update(claims={"client_id": client})

    assert (await reload(gateway, allow("shop"))).result == "ok"
    assert await status(gateway, "/api", token) == 200
    assert (await reload(gateway, allow("spa"))).result == "ok"
    assert await status(gateway, "/api", token) == 403
