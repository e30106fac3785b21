"""A real Chromium, looking at the console of a gateway."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from support.clients.console_accounts import NAME, PASSWORD
from support.deadlines import scaled

Theme = Literal["light", "dark"]
HOW_TO_GET = "Chromium is missing: apt-get install chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str | None:
    """Where Chromium is installed, if it is."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A headless Chromium: the one that is installed, since Playwright brings none here."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=FLAGS, timeout=scaled(60_000)
        )
        try:
            yield browser
        finally:
            await browser.close()


async def open_context(
    browser: Browser, *, theme: Theme = "light", width: int = 1280, height: int = 900
) -> BrowserContext:
    """A fresh profile of the browser."""
    context = await browser.new_context(
        color_scheme=theme,
        viewport={"width": width, "height": height},
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(scaled() * 1000)
    return context


async def sign_in(page: Page, admin_url: str, *, name: str = NAME) -> None:
    """Sign in as people do."""
    await page.goto(f"{admin_url}/console")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(f"{admin_url}/console")
