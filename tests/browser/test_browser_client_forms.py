"""The form of a client in a real Chromium: its parts, and what is wrong, by the keyboard."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("playwright", reason="Playwright is missing: pip install playwright")

from playwright.async_api import Page, expect
from support.clients.console_browser import HOW_TO_GET, chromium
from support.deadlines import scaled
from support.jose_values import jwks, make_key
from support.running_gateway import RunningGateway
from support.tiers import slow

pytestmark = [
    slow("Chromium"),
    pytest.mark.system,
    pytest.mark.skipif(chromium() is None, reason=HOW_TO_GET),
]
expect.set_options(timeout=scaled() * 1000)


async def test_client_with_keys_is_created_and_edited_by_the_keyboard(
    console_page: Page, gateway: RunningGateway
) -> None:
    page = console_page
    await page.get_by_role("link", name="Clients").press("Enter")
    await page.get_by_role("link", name="New client").press("Enter")
    await page.get_by_label("Client id").focus()
    await page.keyboard.type("till")
    await page.get_by_role("radio", name="private_key_jwt").press("Space")
    summary = page.get_by_text("Public keys", exact=True).first
    await summary.focus()
    await page.keyboard.press("Enter")
    keys = page.get_by_role("textbox", name="Public keys", exact=True)
    await page.keyboard.press("Tab")
    await expect(keys).to_be_focused()
    await page.keyboard.type("nonsense")
    await page.get_by_role("button", name="Create").press("Enter")

    # What is wrong is beside its field, in a part that is open now.
    await expect(page.get_by_role("alert")).to_contain_text("see the marked field")
    await expect(keys).to_be_visible()
    await expect(keys).to_have_value("nonsense")
    await expect(keys).to_have_attribute("aria-invalid", "true")
    await expect(keys).to_have_accessible_description(re.compile("JWK set in JSON"))
    await expect(page.get_by_role("radio", name="private_key_jwt")).to_be_checked()
    await keys.fill(json.dumps(jwks(make_key())))
    await page.get_by_role("button", name="Create").press("Enter")
    await expect(page.get_by_role("heading", name="Client created")).to_be_visible()
    await expect(page.locator("#client-secret")).to_have_count(0)
    await page.get_by_role("link", name="Continue to the client").press("Enter")
    await expect(page.get_by_text("private_key_jwt")).to_be_visible()

    await page.get_by_role("link", name="Edit").press("Enter")
    await page.get_by_role("radio", name=re.compile("^tls_client_auth")).press("Space")
    await page.get_by_text("Name in its certificate", exact=True).press("Enter")
    await page.get_by_label("URI in its certificate").fill("spiffe://shop.example/till")
    await keys.fill("")
    await page.get_by_role("button", name="Save").press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("The registration was changed.")
    await expect(page.get_by_text("spiffe://shop.example/till")).to_be_visible()
    status, client = await gateway.call_api("GET", "/api/v1/clients/till")
    assert (status, client["token_endpoint_auth_method"]) == (200, "tls_client_auth")
    assert "jwks" not in client


async def test_rate_limit_of_a_client_is_set_and_removed(
    console_page: Page, gateway: RunningGateway
) -> None:
    page = console_page
    await gateway.create_client("shop")
    await page.get_by_role("link", name="Clients").click()
    await page.get_by_role("link", name="shop").click()
    requests = page.get_by_label("Requests", exact=True)
    await requests.fill("many")
    await page.get_by_role("button", name="Set the limit").click()
    await expect(requests).to_have_accessible_description(
        "Must be a whole number from 1, not 'many'."
    )
    await requests.fill("100")
    await page.get_by_label("in seconds").fill("60")
    await page.get_by_role("button", name="Set the limit").click()
    await expect(page.get_by_role("status")).to_contain_text("The rate limit is set.")
    await expect(page.get_by_text("100 in 60 s, 100 at once")).to_be_visible()
    await page.get_by_role("button", name="Remove the limit").click()
    await expect(page.get_by_role("status")).to_contain_text("applies again")
