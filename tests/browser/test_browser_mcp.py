"""A single-page application in a real Chromium, in front of an MCP server at another origin."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("playwright", reason="Playwright is missing: pip install playwright")

from aiohttp import web
from support.clients.console_browser import HOW_TO_GET, chromium, open_browser, open_context
from support.clients.npm_clients import install_npm_clients
from support.clients.person import PASSWORD, USERNAME
from support.processes.mcp import mcp_gateway, mcp_server
from support.tiers import slow

from examples.ports import free_port

pytestmark = [
    slow("Chromium"),
    pytest.mark.system,
    pytest.mark.skipif(chromium() is None, reason=HOW_TO_GET),
]
HERE = Path(__file__).parent


async def serve_page(node: Path, port: int) -> web.AppRunner:
    """Serve the page and its library on `localhost`."""
    library = node / "node_modules" / "oauth4webapi" / "build" / "index.js"
    app = web.Application()

    async def page(_: web.Request) -> web.FileResponse:
        return web.FileResponse(HERE / "mcp-page.html")

    async def script(_: web.Request) -> web.FileResponse:
        return web.FileResponse(library, headers={"Content-Type": "text/javascript"})

    app.router.add_get("/", page)
    app.router.add_get("/oauth4webapi.js", script)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "localhost", port).start()
    return runner


async def test_page_of_another_origin_signs_in_and_calls_tools(tmp_path: Path) -> None:
    node = await asyncio.to_thread(install_npm_clients, tmp_path)
    port = free_port()
    origin = f"http://localhost:{port}"
    runner = await serve_page(node, port)
    try:
        with mcp_server() as server, mcp_gateway(tmp_path, server, origin=origin) as gateway:
            async with open_browser() as browser:
                page = await (await open_context(browser)).new_page()
                target = quote(f"{gateway.url}/mcp", safe="")
                await page.goto(f"{origin}/?server={target}")
                await page.wait_for_url(f"{gateway.url}/authorize**")
                await page.get_by_label("Username").fill(USERNAME)
                await page.get_by_label("Password").fill(PASSWORD)
                await page.get_by_role("button", name="Sign in").click()
                content = page.get_by_text("Read the weather of a city")
                await content.wait_for()
                await page.get_by_role("button", name="Allow").click()
                await page.wait_for_url(f"{origin}/?code=**")
                await page.wait_for_function("document.title !== 'waits'")
                assert await page.title() == "all is well"
    finally:
        await runner.cleanup()
