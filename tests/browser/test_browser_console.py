"""The console in a real Chromium: the whole story, and whether everybody can use it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="Playwright is missing: pip install playwright")

from playwright.async_api import Browser, BrowserContext, Page, expect
from support.clients.console_accounts import PASSWORD, add_admin
from support.clients.console_browser import (
    HOW_TO_GET,
    Theme,
    chromium,
    open_browser,
    open_context,
)
from support.clients.console_browser import sign_in as sign_in_at
from support.deadlines import scaled
from support.running_gateway import RunningGateway, StartGateway, make_config
from support.servers.raw_upstream import RawUpstream
from support.tiers import slow

pytestmark = [
    slow("Chromium"),
    pytest.mark.system,
    pytest.mark.skipif(chromium() is None, reason=HOW_TO_GET),
]
HERE = Path(__file__).parent
OPEN_PARTS = "for (const part of document.querySelectorAll('details')) part.open = true"
expect.set_options(timeout=scaled() * 1000)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as running:
        yield running


@pytest.fixture
async def console(gateway: RunningGateway, tmp_path: Path) -> str:
    """The URL of an admin listener where alice may sign in."""
    await add_admin(make_config(tmp_path))
    return str(gateway.admin_url("")).rstrip("/")


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from npm, as the lock file names it."""
    if not shutil.which("npm"):
        pytest.skip("npm is missing: apt-get install npm")
    directory = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, directory / name)
    installed = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=directory, capture_output=True, text=True, timeout=scaled(180),
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"npm ci failed, is the registry reachable? {installed.stderr[-300:]}")
    return (directory / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


async def use(gateway: RunningGateway, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url("/api/x"), headers=headers) as response:
        return response.status


async def open_watched_page(context: BrowserContext) -> tuple[Page, list[str]]:
    """A new page, and what the browser and its scripts complain of on it."""
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


async def test_operator_makes_a_client_watches_it_and_revokes_it(
    gateway: RunningGateway, console: str, browser: Browser
) -> None:
    context = await open_context(browser)
    page, complaints = await open_watched_page(context)
    await sign_in_at(page, console)

    # A client, whose secret can be copied, once.
    await page.get_by_role("link", name="Clients").click()
    await page.get_by_role("link", name="New client").click()
    await page.get_by_label("Name", exact=True).fill("The till")
    await page.get_by_label("Client id").fill("till")
    await page.get_by_role("button", name="Create").click()
    await page.get_by_role("button", name="Copy secret").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    secret = await page.evaluate("navigator.clipboard.readText()")
    assert secret == await page.locator("#client-secret").inner_text()
    async with gateway.session.post(
        gateway.url("/token"),
        data={"grant_type": "client_credentials", "client_id": "till", "client_secret": secret},
    ) as response:
        token = (await response.json())["access_token"]

    # Its requests move the live chart, without the page being loaded anew.
    await page.get_by_role("link", name="Overview").click()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.evaluate("window.sameDocument = true")
    chart = page.locator("section[aria-label='Requests per second'] .spark-line")
    before = await chart.get_attribute("d")
    for _ in range(30):
        assert await use(gateway, token) == 200
    highest = page.locator("section[aria-label='Requests per second'] .note")
    # A step of five seconds has to end, be told, and be sent.
    await expect(highest).not_to_have_text("highest 0", timeout=scaled(20_000))
    assert await chart.get_attribute("d") != before
    assert await page.evaluate("window.sameDocument") is True

    # Revoked, it is refused, and the refusal is told.
    await page.get_by_role("link", name="Tokens").click()
    await page.get_by_label("Token", exact=True).fill(token)
    await page.get_by_role("button", name="Look up").click()
    assert token not in page.url
    await expect(page.get_by_text("This access token is live")).to_be_visible()
    await page.get_by_role("button", name="Revoke this token").click()
    await expect(page.get_by_role("status")).to_contain_text("is revoked")
    assert await use(gateway, token) == 401
    await page.get_by_role("link", name="Events").click()
    await expect(page.get_by_role("cell", name="unknown")).to_be_visible()

    # Deleted after seeing what that breaks, and all of it is in the audit log.
    await page.goto(f"{console}/console/clients/till")
    await page.get_by_role("link", name="Delete").click()
    await expect(page.get_by_text("It has no live tokens")).to_be_visible()
    await page.get_by_role("button", name="Delete it").click()
    await expect(page.get_by_role("status")).to_contain_text("is deleted")
    await page.get_by_role("link", name="Audit").click()
    for action in ("client.delete", "token.revoke", "client.create", "session.begin"):
        await expect(page.get_by_text(action)).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await page.goto(f"{console}/console/clients")
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert complaints == [], "the policy blocks nothing that a page needs"
    await context.close()


async def test_values_of_charts_are_shown_where_one_points_or_by_the_keyboard(
    gateway: RunningGateway, console: str, browser: Browser
) -> None:
    context = await open_context(browser)
    page, complaints = await open_watched_page(context)
    await sign_in_at(page, console)
    # What is live is replaced every two seconds: what is pointed at stays.
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    chart = page.get_by_role("group", name="Requests per second")
    await chart.hover()
    shown = chart.locator("output")
    await expect(shown).to_have_text(re.compile(r"^\d\d:\d\d:\d\d UTC: [\d\u2013]"))
    await page.evaluate("document.querySelector('.tiles').dataset.old = ''")
    await expect(page.locator(".tiles[data-old]")).to_have_count(0, timeout=scaled(20_000))
    await expect(shown).to_be_visible()
    await page.get_by_role("heading", name="Overview").hover()
    await expect(page.locator(".chart output")).to_have_count(0)

    await page.get_by_role("button", name="Pause").click()
    await chart.focus()
    await page.keyboard.press("Home")
    first = await shown.inner_text()
    await page.keyboard.press("ArrowRight")
    second = await shown.inner_text()
    assert seconds_of(second) - seconds_of(first) in {5, 5 - 86_400}
    await page.keyboard.press("Escape")
    await expect(page.locator(".chart output")).to_have_count(0)
    await page.get_by_role("link", name="24 h").click()
    await page.get_by_role("group", name="Requests per second").hover()
    await expect(page.locator(".chart output")).to_have_text(
        re.compile(r"^\d\d\d\d-\d\d-\d\d \d\d:\d\d UTC: ")
    )
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Export CSV").click()
    assert (await download.value).suggested_filename == "overview-24h.csv"
    assert complaints == []
    await context.close()


def seconds_of(shown: str) -> int:
    """The time of day in "09:10:05 UTC: 3"."""
    hours, minutes, seconds = map(int, shown[:8].split(":"))
    return hours * 3600 + minutes * 60 + seconds


async def test_live_parts_can_be_paused_and_left_alone_while_in_use(
    gateway: RunningGateway, console: str, browser: Browser
) -> None:
    context = await open_context(browser)
    page = await context.new_page()
    await sign_in_at(page, console)
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_text("Paused")).to_be_visible()
    await page.get_by_role("button", name="Go on").click()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await context.close()


async def test_everything_works_without_script(
    gateway: RunningGateway, console: str, browser: Browser
) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await sign_in_at(page, console)
    await expect(page.get_by_role("link", name="Refresh")).to_be_visible()
    await expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    await page.get_by_role("link", name="Clients").click()
    await page.get_by_role("link", name="New client").click()
    await page.get_by_label("Client id").fill("plain")
    await page.get_by_role("button", name="Create").click()
    assert len(await page.locator("#client-secret").inner_text()) > 40
    await expect(page.get_by_role("button", name="Copy secret")).to_be_hidden()
    await page.get_by_role("link", name="Continue to the client").click()
    await page.get_by_role("button", name="Renew").click()
    await expect(page.get_by_role("status")).to_contain_text("was extended")
    await context.close()


async def test_console_is_used_with_the_keyboard_alone(
    gateway: RunningGateway, console: str, browser: Browser
) -> None:
    context = await open_context(browser)
    page = await context.new_page()
    await sign_in_at(page, console)
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.goto(f"{console}/console")
    for _ in range(6):
        await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Clients"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert await page.evaluate(outline) == "solid", "where the focus is can be seen"
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/clients")
    await context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_no_violation_on_any_page(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path, browser: Browser, axe: str,
    theme: Theme,
) -> None:  # fmt: skip
    gateway = await start(upstream.url)
    await add_admin(make_config(tmp_path))
    console = str(gateway.admin_url("")).rstrip("/")
    token = await gateway.token("shop")
    assert await use(gateway, token) == 200
    await use(gateway, "unknown")
    await gateway.call_api("POST", "/api/v1/clients/shop/api-keys", {"name": "till"})
    await gateway.call_api("POST", "/api/v1/admin-tokens", {"name": "ci"})
    await gateway.call_api("POST", "/api/v1/users", {"username": "carol", "password": PASSWORD})
    context = await open_context(browser, theme=theme)
    # The pages allow no script but their own, which is as it should be: axe goes around it.
    await context.add_init_script(axe)
    page = await context.new_page()
    await page.goto(f"{console}/console/sign-in")
    await _check(page, "sign-in")
    await sign_in_at(page, console)
    for path in ("", "?range=24h", "/traffic", "/traffic?by=client",
                 "/traffic/one?name=api", "/audit?q=client&range=7d", "/events?range=1h",
                 "/routes", "/clients", "/clients/shop", "/clients/shop/edit",
                 "/clients/shop/delete", "/clients/shop/api-keys/new", "/new-client",
                 "/tokens", "/events", "/audit", "/reasons", "/access", "/configuration",
                 "/access/new-admin", "/access/new-token", "/access/new-user",
                 "/access/admins/alice", "/access/admins/alice/delete", "/access/tokens/ci",
                 "/access/users/carol", "/nothing"):  # fmt: skip
        await page.goto(f"{console}/console{path}")
        await page.evaluate(OPEN_PARTS)
        await _check(page, path)
    await page.set_viewport_size({"width": 360, "height": 700})
    for path in (
        "",
        "/traffic",
        "/traffic/one?name=api",
        "/audit",
        "/clients",
        "/clients/shop",
        "/clients/shop/edit",
        "/new-client",
        "/routes",
        "/events",
        "/reasons",
        "/access",
        "/access/new-admin",
        "/access/admins/alice",
        "/access/users/carol",
        "/configuration",
    ):
        await page.goto(f"{console}/console{path}")
        await page.evaluate(OPEN_PARTS)
        await _check(page, f"{path} on a phone")
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{path} is wider than a phone"
    await page.goto(f"{console}/console/tokens")
    await page.get_by_label("Token", exact=True).fill(token)
    await page.get_by_role("button", name="Look up").click()
    await _check(page, "a live token")
    await page.goto(f"{console}/console/new-client")
    await page.get_by_role("button", name="Create").click()
    await _check(page, "a secret")
    await page.goto(f"{console}/console/access/admins/alice")
    await page.get_by_role("button", name="Disable").click()
    await _check(page, "what is not done")
    await page.get_by_role("textbox", name="Password", exact=True).fill("short")
    await page.get_by_label("Password, once more").fill("short")
    await page.get_by_role("button", name="Change password").click()
    await _check(page, "a wrong field")
    await context.close()


async def _check(page: Page, where: str) -> None:
    found: dict[str, Any] = json.loads(
        await page.evaluate("axe.run().then((found) => JSON.stringify(found))")
    )
    violations = [
        f"{violation['id']}: {node['html'][:150]} {node['failureSummary'][:200]}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
    assert violations == [], where
