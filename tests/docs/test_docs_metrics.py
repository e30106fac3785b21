"""docs/reference/metrics.md lists the metrics that a gateway exports, with their labels."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from support.running_gateway import StartGateway

from gateway.metrics import Metrics
from gateway.workers.snapshots import Totals, take_snapshot

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reference" / "metrics.md").read_text()
ROWS = re.findall(r"^\| ((?:`gateway_\w+`(?:, )?)+) \|([^|]*)\|", TEXT, re.MULTILINE)
DOCUMENTED = {
    name: set(re.findall(r"`(\w+)`", labels))
    for names, labels in ROWS
    for name in re.findall(r"`(\w+)`", names)
}
SUFFIXES = {"counter": "_total", "info": "_info"}


async def exported(start: StartGateway) -> dict[str, set[str]]:
    """The families of a gateway that decides for other proxies, too, and those of several workers;
    with the labels of those that have samples by then."""
    metrics = Metrics()
    found = {
        family.name + SUFFIXES.get(family.type, ""): set[str]()
        for family in metrics.registry.collect()
    }
    workers = Totals()
    workers.update(1, take_snapshot(metrics.registry))
    pages = [workers.render(CollectorRegistry()).decode()]
    authz = {"port": 0, "dialect": "nginx", "trusted_proxies": ["127.0.0.1/32"]}
    running = await start("http://127.0.0.1:9", authz=authz)
    async with running.session.get(running.url("/public/x")):
        pages.append(await running.metrics())
    for family in (one for page in pages for one in text_string_to_metric_families(page)):
        name = family.name + SUFFIXES.get(family.type, "")
        labels = {label for sample in family.samples for label in sample.labels}
        found.setdefault(name, set()).update(labels - {"le"})
    return {name: labels for name, labels in found.items() if name.startswith("gateway_")}


async def test_each_metric_is_documented_and_each_documented_metric_is_exported(
    start: StartGateway,
) -> None:
    found = await exported(start)
    assert set(found) == set(DOCUMENTED)
    wrong = {name: labels for name, labels in found.items() if labels - DOCUMENTED[name]}
    assert wrong == {}


def test_each_metric_is_documented_once() -> None:
    names = [name for names, _ in ROWS for name in re.findall(r"`(\w+)`", names)]
    assert len(names) == len(set(names)) > 50


def test_each_metric_that_a_document_names_is_one() -> None:
    others = {"gateway_console", "gateway_session", "gateway_sign_in"}  # cookies
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        named = set(re.findall(r"`(gateway_[a-z0-9_]+)[`{]", path.read_text()))
        named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
        assert named - set(DOCUMENTED) - others == set(), path.name
