"""API keys in a real Chromium: created, copied once, used, rotated and revoked."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright is missing: pip install playwright")

from playwright.async_api import expect
from support.clients.console_accounts import add_admin
from support.clients.console_browser import (
    HOW_TO_GET,
    chromium,
    open_browser,
    open_context,
    sign_in,
)
from support.deadlines import scaled
from support.running_gateway import RunningGateway, StartGateway, make_config
from support.servers.raw_upstream import RawUpstream
from support.tiers import slow

pytestmark = [
    slow("Chromium"),
    pytest.mark.system,
    pytest.mark.skipif(chromium() is None, reason=HOW_TO_GET),
]
expect.set_options(timeout=scaled() * 1000)


async def use(gateway: RunningGateway, key: str) -> int:
    async with gateway.session.get(gateway.url("/k"), headers={"X-API-Key": key}) as response:
        return response.status


async def test_operator_creates_a_key_copies_it_once_and_revokes_it(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    routes = [
        {"name": "k", "match": {"path": "/k"}, "upstream": "main", "credentials": ["api_key"]}
    ]
    gateway = await start(upstream.url, routes=routes)
    await gateway.create_client("till")
    await add_admin(make_config(tmp_path))
    console = str(gateway.admin_url("")).rstrip("/")
    async with open_browser() as browser:
        context = await open_context(browser)
        page = await context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await sign_in(page, console)
        await page.goto(f"{console}/console/clients/till")
        await page.get_by_role("link", name="New API key").click()
        await page.get_by_label("Name").fill("nightly export")
        await page.get_by_label("30 days").check()
        await page.get_by_label("orders:write").uncheck()
        await page.get_by_role("button", name="Create").click()
        await page.get_by_role("button", name="Copy key").click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        value = await page.evaluate("navigator.clipboard.readText()")
        assert await use(gateway, value) == 200
        await page.get_by_role("link", name="Continue to the client").click()
        await expect(page.get_by_role("rowheader", name="nightly export")).to_be_visible()
        await expect(page.get_by_role("cell", name="orders:read", exact=True)).to_be_visible()
        assert value not in await page.content()
        await page.get_by_role("button", name="Revoke nightly export").click()
        await expect(page.get_by_role("status")).to_contain_text("The API key is revoked.")
        assert await use(gateway, value) == 401
        await page.get_by_role("link", name="Audit").click()
        for action in ("api_key.create", "api_key.revoke"):
            await expect(page.get_by_text(action)).to_be_visible()
        assert complaints == [], "the policy blocks nothing that a page needs"
        await context.close()
