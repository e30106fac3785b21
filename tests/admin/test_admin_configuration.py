"""Pages of the console about what was configured, and for whom."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.clients.console_accounts import add_admin
from support.clients.console_visitor import Visitor
from support.deadlines import until
from support.running_gateway import RunningGateway, make_config
from support.servers.raw_upstream import RawUpstream

from gateway.app.gateway import Gateway
from gateway.config import load


@pytest.fixture
async def gateway(tmp_path: Path, upstream: RawUpstream) -> AsyncIterator[RunningGateway]:
    """A gateway that was started from a file, as reloads need."""
    path = tmp_path / "gateway.yaml"
    path.write_text(make_config(tmp_path, upstream.url, reload={"watch": False}))
    loaded = load(path)
    gateway = Gateway(loaded.config, loaded=loaded)
    await gateway.start()
    async with aiohttp.ClientSession() as session:
        running = RunningGateway(gateway, tmp_path, session)
        yield running
        await running.stop()


async def test_event_is_explained_in_words_and_leads_to_its_reason(
    gateway: RunningGateway, alice: Visitor
) -> None:
    async with gateway.session.get(gateway.url("/api/x")) as response:
        assert response.status == 401

    async def is_explained() -> bool:
        text = await alice.get("/console/events")
        return "reasons#missing" in text and "No Authorization field, or another scheme" in text

    await until(is_explained)
    assert '<code id="missing">' in await alice.get("/console/reasons")


async def test_configuration_in_effect_is_shown_without_its_secrets(alice: Visitor) -> None:
    text = await alice.get("/console/configuration")
    assert "provider.token_ttl" in text
    assert "test-admin-token" not in text
    admin = {"Authorization": "Bearer test-admin-token"}
    async with alice.gateway.session.get(
        alice.gateway.admin_url("/api/v1/config"), headers=admin
    ) as response:
        settings = {one["key"]: one["value"] for one in (await response.json())["settings"]}
    assert settings["admin.token"] == "***"
    assert float(settings["provider.token_ttl"]) > 0
    assert any(key.startswith("routes[") for key in settings)


async def test_operator_reloads_and_sees_the_result_and_a_viewer_may_not(
    gateway: RunningGateway, alice: Visitor, tmp_path: Path
) -> None:
    await alice.get("/console/configuration")
    status, _ = await alice.post("/console/configuration/reload")
    assert status == 303
    text = await alice.get(alice.headers["Location"])
    assert "operator" in text
    assert "config.reload" in await alice.get("/console/audit")
    await add_admin(make_config(tmp_path), name="bob", role="viewer")
    bob = Visitor(gateway)
    assert await bob.sign_in("bob") == 303
    assert "Reload the file" not in await bob.get("/console/configuration")
    assert (await bob.post("/console/configuration/reload"))[0] == 403


async def test_client_is_edited_and_what_is_not_acceptable_is_said(alice: Visitor) -> None:
    await alice.get("/console/new-client")
    status, _ = await alice.post("/console/clients", client_id="shop", client_name="Shop")
    assert status == 200
    page = await alice.get("/console/clients/shop/edit")
    assert 'value="Shop"' in page
    status, page = await alice.post(
        "/console/clients/shop/edit",
        **{"client_name": "The shop", "grant:client_credentials": "on", "redirect_uris": "x y"},
    )
    assert status == 400
    assert 'value="The shop"' in page
    status, _ = await alice.post(
        "/console/clients/shop/edit",
        **{"client_name": "The shop", "grant:client_credentials": "on",
           "scope:orders:read": "on"},
    )  # fmt: skip
    assert status == 303
    page = await alice.get(alice.headers["Location"])
    assert "The registration was changed." in page
    assert "The shop" in page
    assert "client.update" in await alice.get("/console/audit")
    await alice.get("/console/clients/nobody/edit", 404)


async def test_events_are_exported_as_a_table(gateway: RunningGateway, alice: Visitor) -> None:
    async with gateway.session.get(gateway.url("/api/x")) as response:
        assert response.status == 401

    async def is_exported() -> bool:
        text = await alice.get("/console/events.csv?kind=refusal")
        return bool(re.search(r"\+00:00,refusal,missing,401,", text))

    await until(is_exported)
    assert alice.headers["Content-Type"].startswith("text/csv")


async def test_routes_show_their_traffic(gateway: RunningGateway, alice: Visitor) -> None:
    for path, status in (("/public", 200), ("/public", 200), ("/api/x", 401)):
        async with gateway.session.get(gateway.url(path)) as response:
            assert response.status == status
    page = await alice.get("/console/routes")
    rows = re.findall(
        r'<th scope="row"><a [^>]+>(\w+)</a></th>.*?data-label="Requests" class="number">(\d+)<.*?'
        r'data-label="4xx" class="number">([^<]+)<.*?data-label="5xx" class="number">([^<]+)<',
        page,
        re.DOTALL,
    )
    assert ("public", "2", "0 %", "0 %") in [tuple(map(plain, row)) for row in rows]
    assert [row for row in rows if row[1] == "1" and plain(row[2]) == "100 %"]


def plain(text: str) -> str:
    """A text with plain spaces."""
    return re.sub(r"\s", " ", text)
