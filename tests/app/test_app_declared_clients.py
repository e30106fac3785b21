"""The clients of a configuration are brought into the store, and nothing else changes them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.deadlines import until
from support.running_gateway import RunningGateway, basic, make_config

from gateway.app.gateway import Gateway
from gateway.config import load
from gateway.reloads import Reload

StartFromFile = Callable[..., Awaitable[RunningGateway]]
READY: tuple[dict[str, str], ...] = ({}, {"clients": "ok"})
BILLING = {"secret": "${file:billing}", "scopes": ["orders:read"]}


@pytest.fixture
async def start_from_file(tmp_path: Path) -> AsyncIterator[StartFromFile]:
    """Starts gateways on one store, each from a file of its own."""
    running: list[RunningGateway] = []
    (tmp_path / "billing").write_text("secret")
    async with aiohttp.ClientSession() as session:

        async def start(file: str = "gateway.yaml", **sections: Any) -> RunningGateway:
            path = tmp_path / file
            sections = {"reload": {"watch": False}} | sections
            path.write_text(make_config(tmp_path, **sections))
            loaded = load(path)
            gateway = Gateway(loaded.config, loaded=loaded)
            await gateway.start()
            running.append(RunningGateway(gateway, tmp_path, session))
            await until_ready(running[-1])
            return running[-1]

        yield start
        for one in running:
            await one.stop()


async def until_ready(gateway: RunningGateway) -> None:
    await until(lambda: gateway.gateway._admin.declared_clients.readiness() in READY)


async def reload(gateway: RunningGateway, file: str = "gateway.yaml", **sections: Any) -> Reload:
    """Write another configuration and have it loaded, its clients included."""
    sections = {"reload": {"watch": False}} | sections
    (gateway.directory / file).write_text(make_config(gateway.directory, **sections))
    assert gateway.gateway.reloader is not None
    done = await gateway.gateway.reloader.reload("signal")
    assert done.result == "ok", done.problems
    await until_ready(gateway)
    return done


async def token_status(gateway: RunningGateway, client_id: str, secret: str = "secret") -> int:
    form = {"grant_type": "client_credentials"}
    async with gateway.session.post(
        gateway.url("/token"), data=form, headers=basic(client_id, secret)
    ) as response:
        await response.read()
        return response.status


async def test_declared_client_gets_a_token_from_the_start(start_from_file: StartFromFile) -> None:
    gateway = await start_from_file(clients={"billing": BILLING})
    assert await token_status(gateway, "billing") == 200
    assert await gateway.metric("gateway_clients_declared") == 1
    assert await gateway.metric("gateway_clients_in_sync") == 1
    _, ready = await gateway.call_api("GET", "/readyz")
    assert ready["checks"]["clients"] == "ok"


async def test_reload_changes_removes_and_declares_again(
    start_from_file: StartFromFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gateway = await start_from_file(clients={"billing": BILLING})
    (gateway.directory / "billing").write_text("rotated")
    done = await reload(gateway, clients={"billing": {**BILLING, "client_name": "B"}})
    shown = {change.key: (change.before, change.after) for change in done.changes}
    assert shown["clients.billing.client_name"] == ("null", '"B"')
    assert shown["clients.billing.secret"] == ("***", "***")
    assert await token_status(gateway, "billing") == 401
    assert await token_status(gateway, "billing", "rotated") == 200
    done = await reload(gateway, clients={})
    assert [str(change) for change in done.changes] == ["clients.billing: removed"]
    assert await token_status(gateway, "billing", "rotated") == 401
    assert (await gateway.logged(3))[-1]["reason"] == "client_disabled"
    assert any("is disabled since" in record.getMessage() for record in caplog.records)
    await reload(gateway, clients={"billing": BILLING})
    assert await token_status(gateway, "billing", "rotated") == 200
    lines = [r.getMessage() for r in caplog.records if "clients of clients_owner" in r.getMessage()]
    assert [line.partition("'config': ")[2] for line in lines] == [
        "billing created",
        "billing changed (client_name, secret)",
        "billing disabled (1 live tokens revoked)",
        "billing enabled (client_name, expires_at, disabled_at)",
    ]


async def test_file_that_appears_in_the_directory_is_noticed(
    start_from_file: StartFromFile, tmp_path: Path
) -> None:
    (tmp_path / "teams").mkdir()
    reloading = {"watch": True, "interval": "20ms", "debounce": "10ms"}
    gateway = await start_from_file(clients_dir="teams", reload=reloading)
    assert await token_status(gateway, "billing") == 401
    (tmp_path / "teams" / "billing.yaml").write_text("billing: {secret: '${file:../billing}'}\n")
    await until(lambda: _has_client(gateway, "billing"))
    assert await token_status(gateway, "billing") == 200
    (tmp_path / "teams" / "billing.yaml").unlink()
    await until(lambda: not gateway.gateway.config.clients)
    await until_ready(gateway)
    assert await token_status(gateway, "billing") == 401


def _has_client(gateway: RunningGateway, client_id: str) -> bool:
    clients = gateway.gateway.config.clients
    return client_id in clients and gateway.gateway._admin.declared_clients.readiness() in READY


async def test_declared_client_is_read_only_in_the_admin_api(
    start_from_file: StartFromFile,
) -> None:
    gateway = await start_from_file(clients={"billing": BILLING})
    one = "/api/v1/clients/billing"
    status, shown = await gateway.call_api("GET", one)
    assert (status, shown["managed_by"]) == (200, "config")
    calls: list[tuple[str, str, Any]] = [
        ("PATCH", one, {"client_name": "x"}), ("DELETE", one, None), ("POST", f"{one}/renew", {}),
        ("POST", f"{one}/rotate", {}), ("PUT", f"{one}/rate-limit", {"requests": 1}),
        ("DELETE", f"{one}/rate-limit", None), ("DELETE", f"{one}/previous-secret", None),
        ("POST", "/api/v1/clients", {"client_id": "billing", "replace": True}),
    ]  # fmt: skip
    for method, path, body in calls:
        status, problem = await gateway.call_api(method, path, body)
        assert (status, problem["reason"]) == (409, "client_managed"), (method, path)
        assert "clients_owner 'config'" in problem["detail"]
    status, revoked = await gateway.call_api("POST", f"{one}/revoke-tokens")
    assert (status, revoked["tokens_revoked"]) == (200, 0), "that takes nothing from the file"


async def test_declared_client_can_not_be_taken_over_by_registration(
    start_from_file: StartFromFile,
) -> None:
    registration = {"mode": "token", "token": "test-registration-token", "fail_if_present": False}
    gateway = await start_from_file(
        clients={"billing": BILLING}, provider={"registration": registration}
    )
    async with gateway.session.post(
        gateway.url("/createClient"),
        json={"client_id": "billing", "client_secret": "mine"},
        headers={"Authorization": "Bearer test-registration-token"},
    ) as response:
        assert response.status == 400
        assert "reserved" in (await response.json())["error_description"]
    assert await token_status(gateway, "billing") == 200


async def test_replica_with_other_clients_is_reported_and_undoes_nothing(
    start_from_file: StartFromFile, caplog: pytest.LogCaptureFixture
) -> None:
    old = await start_from_file("old.yaml", clients={"billing": BILLING})
    both = {"billing": BILLING, "shop": BILLING}
    new = await start_from_file("new.yaml", clients=both)
    await reload(old, "old.yaml", clients={"billing": BILLING}, rate_limit={"requests": 1000})
    await until(lambda: "another gateway has declared other clients" in caplog.text)
    assert await old.metric("gateway_clients_in_sync") == 0
    assert await token_status(new, "shop") == 200
    await reload(old, "old.yaml", clients=both, rate_limit={"requests": 1000})
    assert await old.metric("gateway_clients_in_sync") == 1


async def test_wrong_client_rejects_a_reload(start_from_file: StartFromFile) -> None:
    gateway = await start_from_file(clients={"billing": BILLING})
    wrong = make_config(gateway.directory, clients={"billing": {"scopes": ["orders:read"]}})
    (gateway.directory / "gateway.yaml").write_text(wrong)
    assert gateway.gateway.reloader is not None
    done = await gateway.gateway.reloader.reload("signal")
    assert done.result == "error"
    assert "clients.billing: needs secret" in done.problems[0]
    assert await token_status(gateway, "billing") == 200
