"""`make screenshots`: pictures of the console for the documents, with made-up traffic.

A real gateway and a real Chromium; only the last day is generated, because
waiting for it takes too long.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from playwright.async_api import Browser
from support.clients.console_accounts import PASSWORD, add_admin
from support.clients.console_browser import Theme, open_browser, open_context, sign_in
from support.running_gateway import ADMIN_TOKEN, RunningGateway, make_config

from gateway.app.gateway import Gateway
from gateway.config import load
from gateway.history.breakdown import Counts
from gateway.history.ring import Recent
from gateway.history.sampling import BUCKETS, Refusal, Slice
from gateway.history.spans import SHORTEST
from gateway.metrics import DURATION_BUCKETS_S

IMAGES = Path(__file__).parents[2] / "docs" / "images"
THEMES: tuple[Theme, ...] = ("light", "dark")
CLIENTS = (
    ("billing-export", "Billing export", ("orders:read",)),
    ("erp-sync", "ERP synchronisation", ("orders:read", "orders:write")),
    ("mobile-backend", "Backend of the mobile app", ("orders:read", "orders:write")),
    ("partner-acme", "ACME (partner)", ("orders:read",)),
    ("reporting", "Nightly reports", ("orders:read",)),
    ("shop", "The shop", ("orders:read", "orders:write")),
    ("warehouse", "Warehouse scanners", ("orders:read", "orders:write")),
)  # fmt: skip
ROUTES = [
    {"name": "orders-read", "match": {"path": "/api/orders", "methods": ["GET", "HEAD"]},
     "upstream": "orders", "scopes": ["orders:read"]},
    {"name": "orders-write", "match": {"path": "/api/orders", "methods": ["POST", "PUT"]},
     "upstream": "orders", "scopes": ["orders:write"]},
    {"name": "partner", "match": {"path": "/partner", "hosts": ["partner.example"]},
     "upstream": "orders", "clients": ["partner-acme"]},
    {"name": "invoices", "match": {"path": "/api/invoices"}, "upstream": "invoices",
     "scopes": ["orders:read"]},
    {"name": "docs", "match": {"path": "/docs"}, "upstream": "invoices", "auth": "none"},
]  # fmt: skip


SHARES = {"orders-read": 0.62, "orders-write": 0.2, "invoices": 0.1, "docs": 0.05, "partner": 0.03}
DAY_S, COARSE_S = 86_400, 60


def make_up(recent: Recent) -> None:
    """Traffic of a day: a wave, a slow spell, a few errors."""
    chance = random.Random(8)
    history, now = recent.history, time.monotonic()
    clock = history._clock
    for second in range(-DAY_S, 0, COARSE_S):
        history._clock = lambda at=now - SHORTEST.seconds + second: at  # type: ignore[misc]
        wave = 700 + 450 * math.sin(second / 13_000)
        requests = int(chance.gauss(wave, 60)) * COARSE_S
        slow = 1.8 if -30_000 < second < -27_000 else 1.0
        history.add(0, _slice(chance, requests, slow, sampled=500))
    for second in range(int(SHORTEST.seconds) + 6):
        history._clock = lambda at=now - SHORTEST.seconds + second: at  # type: ignore[misc]
        wave = 900 + 260 * math.sin(second / 130) + 90 * math.sin(second / 17)
        requests = max(0, int(chance.gauss(wave, 40)))
        slow = 2.6 if 520 < second < 610 else 1.0
        history.add(0, _slice(chance, requests, slow))
    history._clock = clock
    for route, status, reason, count, who, address in (
        ("orders-write", 403, "scope", 14, "reporting", "10.4.1.17"),
        ("orders-read", 401, "expired", 231, "", "10.4.2.8"),
        ("partner", 403, "client", 3, "shop", "198.51.100.7"),
        ("_none", 404, "no_route", 58, "", "203.0.113.77"),
        ("_provider", 401, "invalid_client", 5, "billing-export", "203.0.113.77"),
    ):
        recent.events.refused(Refusal(route, status, reason, count, who, address))
    recent.events.add("store", "The store does not respond")
    recent.events.add("store", "The store responds again", is_bad=False)


def _slice(chance: random.Random, requests: int, slow: float, *, sampled: int = 10) -> Slice:
    def spread(median_s: float) -> list[int]:
        counts = [0] * BUCKETS
        for _ in range(requests // sampled):
            value = median_s * slow * math.exp(chance.gauss(0, 0.7))
            bucket = sum(bound < value for bound in DURATION_BUCKETS_S)
            counts[bucket] += sampled
        return counts

    def split(shares: dict[str, float]) -> list[Counts]:
        return [
            Counts(
                name, part, int(part * chance.uniform(0, 0.02)),
                int(part * 0.0014 * slow * slow * chance.random()), part * 0.0055 * slow,
            )
            for name, share in shares.items()
            for part in [int(requests * share * chance.uniform(0.8, 1.2))]
        ]  # fmt: skip

    errors = int(requests * 0.0014 * slow * slow * chance.random())
    hits = int(requests * chance.uniform(0.985, 0.998))
    return Slice(
        requests=requests, errors=errors, durations=spread(0.0042),
        upstream_durations=spread(0.0036), cache_hits=hits, cache_lookups=requests,
        tokens_issued=int(chance.random() < 0.4), inflight=int(chance.gauss(9 * slow, 2)),
        routes=split(SHARES),
        clients=split({client_id: 0.3 / (at + 1) for at, (client_id, _, _) in enumerate(CLIENTS)}),
    )  # fmt: skip


async def main() -> int:
    """Write the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        text = make_config(
            Path(name),
            upstreams={
                "main": None,
                "orders": {"targets": ["http://127.0.0.1:9001", "http://127.0.0.1:9002"],
                           "balance": "least_requests"},
                "invoices": {"targets": ["http://127.0.0.1:9003"]},
            },
            routes=ROUTES,
        ).replace("  main: null\n", "")  # fmt: skip
        await add_admin(text)
        async with aiohttp.ClientSession() as session:
            path = Path(name) / "gateway.yaml"
            path.write_text(text)
            loaded = load(path)
            started = Gateway(loaded.config, loaded=loaded)
            await started.start()
            gateway = RunningGateway(started, Path(name), session)
            feeding = asyncio.create_task(_feed(gateway.gateway._admin.recent))
            try:
                await _fill(gateway)
                async with open_browser() as browser:
                    for theme in THEMES:
                        await _shoot(browser, gateway, theme)
            finally:
                feeding.cancel()
                await gateway.stop()
    return 0


async def _feed(recent: Recent) -> None:
    chance = random.Random(9)
    while True:
        await asyncio.sleep(1)
        recent.receive(0, _slice(chance, int(chance.gauss(1050, 40)), 1.0))


async def _fill(gateway: RunningGateway) -> None:
    make_up(gateway.gateway._admin.recent)
    for path, body in (
        ("admins", {"name": "bob", "password": PASSWORD, "role": "viewer"}),
        ("admin-tokens", {"name": "dashboard"}),
        ("admin-tokens", {"name": "ci", "role": "operator", "expires_in": 2_592_000}),
        ("users", {"username": "carol", "password": PASSWORD, "name": "Carol Clark"}),
        ("users", {"username": "dave", "password": PASSWORD, "name": "Dave D."}),
    ):
        status, made = await gateway.call_api("POST", f"/api/v1/{path}", body)
        assert status == 201, made
    await gateway.call_api("POST", "/api/v1/users/dave/disable")
    for client_id, client_name, scopes in CLIENTS:
        async with gateway.session.post(
            gateway.admin_url("/api/v1/clients"),
            json={
                "client_id": client_id,
                "client_name": client_name,
                "client_secret": "secret",
                "scope": " ".join(scopes),
            },
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        ) as response:
            assert response.status == 201, await response.text()
        for _ in range(3):
            token = await gateway.get_token(client_id)
        headers = {"Authorization": f"Bearer {token}"}
        async with gateway.session.get(gateway.url("/api/orders"), headers=headers):
            pass
    await gateway.gateway._provider.usage.flush()


async def _shoot(browser: Browser, gateway: RunningGateway, theme: Theme) -> None:
    admin = str(gateway.admin_url("")).rstrip("/")
    context = await open_context(browser, theme=theme, width=1280, height=860)
    page = await context.new_page()

    async def shoot(name: str) -> None:
        path = IMAGES / f"console-{name}-{theme}.png"
        await page.screenshot(path=path, full_page=name != "overview")
        print(path.name, path.stat().st_size // 1024, "KiB")

    await page.goto(f"{admin}/console/sign-in")
    await shoot("sign-in")
    await sign_in(page, admin)
    await page.get_by_text("Live", exact=True).wait_for()
    await shoot("overview")
    for name, path in (
        ("traffic", "/traffic?by=client&range=24h"),
        ("traffic-one", "/traffic/one?by=route&name=orders-read&range=24h"),
        ("routes", "/routes"), ("clients", "/clients"), ("client", "/clients/shop"),
        ("delete", "/clients/partner-acme/delete"), ("events", "/events"),
        ("configuration", "/configuration"), ("access", "/access"),
        ("account", "/access/users/carol"), ("new-client", "/new-client"),
    ):  # fmt: skip
        await page.goto(f"{admin}/console{path}")
        await shoot(name)
    await page.goto(f"{admin}/console/new-client")
    await page.get_by_label("Name", exact=True).fill("The till")
    await page.get_by_label("Client id").fill(f"till-{theme}")
    await page.get_by_role("button", name="Create").click()
    await shoot("secret")
    await page.goto(f"{admin}/console/tokens")
    await page.get_by_label("Token", exact=True).fill(await gateway.get_token("shop"))
    await page.get_by_role("button", name="Look up").click()
    await shoot("tokens")
    await page.goto(f"{admin}/console/audit")
    await shoot("audit")
    phone = await context.new_page()
    await phone.set_viewport_size({"width": 390, "height": 844})
    await phone.goto(f"{admin}/console")
    await phone.screenshot(path=IMAGES / f"console-phone-{theme}.png")
    await phone.goto(f"{admin}/console/events")
    await phone.screenshot(path=IMAGES / f"console-phone-events-{theme}.png")
    await context.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
