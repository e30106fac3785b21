"""Fixtures of the tests with a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.clients.console_accounts import add_admin
from support.running_gateway import RunningGateway, make_config

if TYPE_CHECKING:
    from playwright.async_api import Page
    from support.clients.console_browser import Theme

SCREENS: dict[str, tuple[Theme, int]] = {"desktop": ("light", 1280), "phone": ("dark", 360)}


@pytest.fixture(params=SCREENS)
async def console_page(
    gateway: RunningGateway, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Page]:
    """The console, to which alice has signed in: on a light desktop and on a dark phone. What was
    shown last fits the screen, and the browser had nothing to complain of."""
    chromium = pytest.importorskip("support.clients.console_browser", reason="no Playwright")
    await add_admin(make_config(tmp_path))
    theme, width = SCREENS[request.param]
    async with chromium.open_browser() as browser:
        context = await chromium.open_context(browser, theme=theme, width=width)
        page = await context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await chromium.sign_in(page, str(gateway.admin_url("")).rstrip("/"))
        yield page
        shown = await page.evaluate("document.documentElement.scrollWidth")
        assert shown <= width, "nothing is wider than the screen"
        # That a form was rejected is what the test is about.
        assert [one for one in complaints if "status of 4" not in one] == []
        await context.close()
