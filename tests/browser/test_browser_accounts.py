"""Accounts in a real Chromium: made by the keyboard, wrong fields, and the last operator."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright", reason="Playwright is missing: pip install playwright")

from playwright.async_api import Page, expect
from support.clients.console_accounts import PASSWORD
from support.clients.console_browser import HOW_TO_GET, chromium
from support.deadlines import scaled
from support.running_gateway import RunningGateway
from support.tiers import slow

pytestmark = [
    slow("Chromium"),
    pytest.mark.system,
    pytest.mark.skipif(chromium() is None, reason=HOW_TO_GET),
]
expect.set_options(timeout=scaled() * 1000)


@pytest.fixture
async def page(console_page: Page) -> Page:
    """The page *Access*, which alice has opened."""
    await console_page.get_by_role("link", name="Access").click()
    return console_page


async def test_admin_user_is_created_by_the_keyboard_alone_and_a_wrong_field_says_why(
    page: Page,
) -> None:
    keyboard = page.keyboard
    await page.get_by_role("link", name="New admin user").focus()
    await keyboard.press("Enter")
    name = page.get_by_label("Name", exact=True)
    await name.focus()
    await keyboard.type("bob b")
    await keyboard.press("Tab")
    # One of the radio buttons is in the order of tabs; arrows choose.
    await keyboard.press("ArrowUp")
    await expect(page.get_by_role("radio", name="viewer")).to_be_checked()
    for _ in range(2):
        await keyboard.press("Tab")
        await keyboard.type(PASSWORD)
    await keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("see the marked field")
    await expect(name).to_have_attribute("aria-invalid", "true")
    await expect(name).to_have_accessible_description(re.compile("unlike 'bob b'"))
    await expect(name).to_have_value("bob b")
    await expect(page.get_by_role("radio", name="viewer")).to_be_checked()
    await name.fill("bob")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_label("Password, once more").fill(PASSWORD)
    await keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("The account is created.")

    await page.get_by_role("button", name="Disable").press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("The account is disabled.")
    await page.get_by_role("button", name="Enable").press("Enter")
    await page.get_by_role("link", name="Delete").press("Enter")
    await expect(page.get_by_role("heading", name="Delete this admin user?")).to_be_visible()
    await page.get_by_role("button", name="Delete it").press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("The account is deleted.")
    await expect(page.get_by_role("link", name="bob", exact=True)).to_have_count(0)


async def test_the_last_operator_stays(page: Page) -> None:
    await page.get_by_role("link", name="alice").click()
    await page.get_by_role("button", name="Disable").click()
    await expect(page.get_by_role("alert")).to_contain_text("'alice' is the last operator")
    await page.get_by_role("radio", name="viewer").check()
    await page.get_by_role("button", name="Save role").click()
    await expect(page.get_by_role("alert")).to_contain_text("'alice' is the last operator")
    await page.get_by_role("link", name="Delete").click()
    await expect(page.get_by_text("This is you")).to_be_visible()
    await page.get_by_role("button", name="Delete it").click()
    await expect(page.get_by_role("alert")).to_contain_text("'alice' is the last operator")


async def test_token_is_copied_once_works_and_is_rotated(
    page: Page, gateway: RunningGateway
) -> None:
    await page.get_by_role("link", name="New token").click()
    await page.get_by_label("Name", exact=True).fill("ci")
    await page.get_by_label("30 days").check()
    await page.get_by_role("button", name="Create").click()
    values = []
    for _ in range(2):
        await page.get_by_role("button", name="Copy token").click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        values.append(await page.evaluate("navigator.clipboard.readText()"))
        await page.get_by_role("link", name="Continue to the token").click()
        assert values[-1] not in await page.content()
        await page.get_by_role("button", name="Rotate").click()
    for value, status in zip(values, (401, 401), strict=True):
        headers = {"Authorization": f"Bearer {value}"}
        assert (await gateway.call_api("GET", "/api/v1/routes", **headers))[0] == status
    last = await page.locator("#value").inner_text()
    headers = {"Authorization": f"Bearer {last}"}
    assert (await gateway.call_api("GET", "/api/v1/routes", **headers))[0] == 200


async def test_user_of_the_provider_is_created_and_disabled(page: Page) -> None:
    await page.get_by_role("link", name="New user").click()
    await page.get_by_label("Username").fill("carol")
    await page.get_by_label("Display name").fill("Carol Clark")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_label("Password, once more").fill("another")
    await page.get_by_role("button", name="Create").click()
    again = page.get_by_label("Password, once more")
    await expect(again).to_have_accessible_description("The two passwords differ.")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await again.fill(PASSWORD)
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("heading", name="Carol Clark")).to_be_visible()
    await page.get_by_role("button", name="Disable").click()
    await expect(page.get_by_text("disabled", exact=True)).to_be_visible()
    await page.get_by_role("link", name="Access", exact=True).first.click()
    row = page.get_by_role("row").filter(has_text="Carol Clark")
    await expect(row.get_by_text("disabled", exact=True)).to_be_visible()
