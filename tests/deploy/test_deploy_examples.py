"""The shipped examples follow the advice that the documents give."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import load_config

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for directory in ("config", "deploy/k8s", "deploy/compose", "examples")
    for path in (ROOT / directory).rglob("*.yaml")
    if re.search(r"^provider:", path.read_text(), re.MULTILINE)
)
WIDEST = {4: 24, 6: 64}
"""Prefix lengths: a network of one's own proxies, not of everybody's pods."""


def _networks(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for one in value for found in _networks(one)]
    if not isinstance(value, dict):
        return []
    own = value.get("trusted_proxies") or []
    return [*own, *(found for one in value.values() for found in _networks(one))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_example_trusts_no_wide_network(path: Path) -> None:
    for text in _networks(yaml.safe_load(path.read_text())):
        if text != "unix":
            network = ipaddress.ip_network(text)
            assert network.prefixlen >= WIDEST[network.version], text


@pytest.mark.parametrize("name", ["values.yaml", "values-edge.yaml", "values-acme.yaml"])
def test_issuer_of_the_chart_is_https(name: str) -> None:
    values = yaml.safe_load((ROOT / "deploy/helm/bearer-gateway" / name).read_text())
    assert values["config"]["provider"]["issuer"].startswith("https://")


def test_example_of_a_unix_socket_listens_on_it_only() -> None:
    config = load_config(ROOT / "config" / "local.yaml", environ={})
    assert config.listen.port is None
    assert config.listen.unix is not None
