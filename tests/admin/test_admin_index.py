"""The root of the admin listener leads to all that is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream
from support.stores.faults import break_store

from gateway.admin.index import DOCUMENTATION

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def links(gateway: RunningGateway) -> dict[str, dict[str, Any]]:
    """The links for programs, by title."""
    async with gateway.session.get(gateway.admin_url("/")) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        return {link["title"]: link for link in (await response.json())["links"]}


async def test_root_leads_to_what_is_served(gateway: RunningGateway) -> None:
    found = await links(gateway)
    for title in ("Metrics", "Health", "Readiness", "OpenAPI"):
        async with gateway.session.get(gateway.admin_url(found[title]["href"])) as response:
            assert response.status == 200, title
    assert found["Documentation"]["href"] == DOCUMENTATION
    urls = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert urls["project"]["urls"]["Documentation"] == DOCUMENTATION


async def test_browser_gets_a_page_with_the_same_links(gateway: RunningGateway) -> None:
    async with gateway.session.get(gateway.admin_url("/"), headers=BROWSER) as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        page = await response.text()
    for link in (await links(gateway)).values():
        assert link["href"] in page
    for asset in re.findall(r'(?:href|src)="(/console/static/[^"]+)"', page):
        async with gateway.session.get(gateway.admin_url(asset)) as response:
            assert response.status == 200


async def test_what_is_off_comes_with_how_to_switch_it_on(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, admin={"port": 0, "token": None})
    found = await links(gateway)
    assert "gateway admin create NAME" in found["Console"]["description"]
    assert "gateway admin token create NAME" in found["Admin API"]["description"]


async def test_what_is_on_does_not(gateway: RunningGateway) -> None:
    assert "gateway admin token" not in (await links(gateway))["Admin API"]["description"]


async def test_root_is_there_while_the_store_is_not(gateway: RunningGateway) -> None:
    break_store(gateway.directory / "gateway.db")
    assert "Metrics" in await links(gateway)
