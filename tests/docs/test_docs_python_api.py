"""docs/reference/python-api.md describes each public name of the modules for applications."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

import gateway.aiohttp
import gateway.asgi
import gateway.asgi.fastapi
import gateway.testing
from gateway.app.embedded import EmbeddedGateway, Identity, Requirements

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "python-api.md").read_text()
SHARED = {"EmbeddedGateway", "Identity"}
MODULES = (gateway.aiohttp, gateway.asgi, gateway.asgi.fastapi, gateway.testing)


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_each_public_name_has_a_heading_and_each_heading_is_a_public_name(
    module: ModuleType,
) -> None:
    headings = re.findall(r"^### (.*)$", section(f"`{module.__name__}`"), re.MULTILINE)
    named = {name for heading in headings for name in re.findall(r"`(\w+)`", heading)}
    assert named == set(module.__all__) - SHARED
    assert all(hasattr(module, name) for name in module.__all__)


def rows(heading: str) -> set[str]:
    text = TEXT.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    return set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


def test_tables_list_fields_and_keywords() -> None:
    assert rows("`Identity`") == {field.name for field in fields(Identity)}
    assert rows("Requirements") == set(Requirements.__annotations__)
    parameters = set(inspect.signature(EmbeddedGateway).parameters)
    assert rows("`EmbeddedGateway`") == parameters
    handler = set(inspect.signature(gateway.aiohttp.proxy_handler).parameters)
    assert rows("`proxy_handler`") == handler - {"upstream", "gateway"}


@pytest.mark.parametrize("name", ["issue_token", "add_client", "revoke_token"])
def test_methods_have_the_parameters_that_the_page_shows(name: str) -> None:
    (shown,) = re.findall(rf"`await {name}\((.*?)\)(?: -> str)?`", TEXT)
    method = getattr(gateway.testing.TemporaryGateway, name)
    parameters = [one for one in inspect.signature(method).parameters if one != "self"]
    assert re.findall(r"(\w+)(?:=|,|$)", re.sub(r'="[^"]*"|=[\w.()]+', "", shown)) == parameters
