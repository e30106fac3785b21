"""endpoints.md has the parameters and statuses that the OpenAPI document has, which the
endpoints are made from and which schemathesis holds them to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.admin.openapi import openapi_document
from gateway.app.build.provider import provider_policy
from gateway.config import parse_config

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reference" / "endpoints.md").read_text()
CONFIG = """
provider:
  issuer: https://gateway.example
  registration: {mode: open}
  grant_types: [client_credentials, authorization_code,
    "urn:ietf:params:oauth:grant-type:token-exchange"]
  refresh_tokens: {strategy: rotating}
upstreams: {app: {targets: ["http://127.0.0.1:9"]}}
routes: [{name: api, match: {path: /api}, upstream: app}]
"""
POLICY = provider_policy(parse_config(CONFIG, file="g.yaml", environ={}))
DOCUMENT = openapi_document([], POLICY)
COMMON = {"405", "413", "429", "503"}
"""Above all sections of the page."""
AUTHENTICATION = {"client_id", "client_secret", "client_assertion", "client_assertion_type"}


def section(heading: str) -> str:
    """The part of the page below a heading."""
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def operation(method: str, path: str) -> dict[str, Any]:
    """What the OpenAPI document says of an operation."""
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


@pytest.mark.parametrize(
    ("heading", "method", "path"),
    [
        ("POST /createClient", "post", "/createClient"),
        ("POST /token", "post", "/token"),
        ("POST /introspect", "post", "/introspect"),
        ("POST /revoke", "post", "/revoke"),
        ("GET, POST /authorize", "get", "/authorize"),
    ],
)
def test_each_parameter_is_documented_and_each_documented_parameter_is_one(
    heading: str, method: str, path: str
) -> None:
    described = operation(method, path)
    known = {one["name"] for one in described.get("parameters", ())}
    for body in described.get("requestBody", {}).get("content", {}).values():
        known |= set(body["schema"]["properties"])
    text = section(heading)
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", text, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    if not documented:
        documented = set(re.findall(r"`([a-z_]+)`(?= \((?:required|ignored))", text))
    assert documented - known == set()
    assert known - documented - (AUTHENTICATION if path != "/createClient" else set()) == set()


@pytest.mark.parametrize(
    ("heading", "method", "path"),
    [
        ("POST /createClient", "post", "/createClient"),
        ("POST /token", "post", "/token"),
        ("POST /register", "post", "/register"),
        ("GET, POST /validate", "get", "/validate"),
        ("POST /introspect", "post", "/introspect"),
        ("POST /revoke", "post", "/revoke"),
    ],
)
def test_each_status_is_documented_and_each_documented_status_is_one(
    heading: str, method: str, path: str
) -> None:
    text = section(heading)
    if path == "/register":  # refers to that one
        text += section("POST /createClient").replace("| 409 |", "")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    documented = set(re.findall(r"\b(20[0-9]|30[0-9]|4[0-9]{2}|50[0-9])\b(?! characters)", text))
    known = set(operation(method, path)["responses"])
    assert known - documented - COMMON == set()
    assert documented - known - COMMON == ({"409"} if path == "/register" else set())
    for status in COMMON:
        assert status in TEXT.partition("\n## ")[0]
