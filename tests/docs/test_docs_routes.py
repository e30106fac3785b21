"""The documents list the paths that the provider and the admin listener serve."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from unittest.mock import MagicMock

from gateway.admin.application import create_admin_app
from gateway.app.build.provider import provider_policy
from gateway.config import parse_config
from gateway.oauth.endpoints import ProviderEndpoints
from gateway.oauth.endpoints.authorize import authorization_endpoints

ROOT = Path(__file__).parents[2]
CONFIG = """
provider: {issuer: "https://gateway.example", registration: {mode: open}}
upstreams: {app: {targets: ["http://127.0.0.1:9"]}}
routes: [{name: api, match: {path: /api}, upstream: app}]
"""
GENERATED = re.compile(r"/static/|/\{rest\}|\.css$|oauth-protected-resource/")
"""Style sheets, what is not found, and the metadata of single routes."""


def test_each_path_of_the_admin_api_is_documented_and_each_documented_path_is_served() -> None:
    parts = {name: MagicMock() for name in inspect.signature(create_admin_app).parameters}
    router = create_admin_app(**parts).router
    variable = re.compile(r"\{(?:client_)?(\w+)\}")
    served = {
        (route.method, variable.sub(lambda part: part[1].upper(), route.resource.canonical))
        for route in router.routes()
        if route.resource and route.method != "HEAD"
    }
    text = (ROOT / "docs" / "reference" / "admin-api.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z]+) (/[^`?]*)", text, re.MULTILINE))
    assert documented == {one for one in served if not one[1].startswith("/console")}
    assert "`/console`" in (ROOT / "docs" / "guides" / "console.md").read_text()


def test_each_endpoint_of_the_provider_is_documented_and_each_documented_one_is_served() -> None:
    policy = provider_policy(parse_config(CONFIG, file="g.yaml", environ={}))
    part = MagicMock()
    pages = {
        path: page
        for upstream in (None, part)
        for path, page in authorization_endpoints(
            part, policy, seal=part, sessions=part, consents=part, limiter=part, metrics=part,
            upstream=upstream,
        ).items()
    }  # fmt: skip
    endpoints = ProviderEndpoints(
        part, part, policy, part, part,
        records=part, proofs=part, signing_keys=part, authorization=pages,
    )  # fmt: skip
    served = {path for path in endpoints.paths if not GENERATED.search(path)}
    text = (ROOT / "docs" / "reference" / "endpoints.md").read_text()
    headings = re.findall(r"^## ([A-Z]+(?:, [A-Z]+)*) (/\S+)$", text, re.MULTILINE)
    documented = {path for _, path in headings}
    documented |= set(re.findall(r"`(/authorize/[a-z-]+)`", text))
    assert documented == served


def test_each_documented_method_is_one_that_the_endpoint_takes() -> None:
    policy = provider_policy(parse_config(CONFIG, file="g.yaml", environ={}))
    part = MagicMock()
    endpoints = ProviderEndpoints(
        part, part, policy, part, part, records=part, proofs=part, signing_keys=part
    )
    text = (ROOT / "docs" / "reference" / "endpoints.md").read_text()
    documented: dict[str, set[str]] = {}
    for methods, path in re.findall(r"^## ([A-Z, ]+) (/\S+)$", text, re.MULTILINE):
        documented.setdefault(path, set()).update(methods.split(", "))
    for path, endpoint in endpoints._endpoints.items():
        if not GENERATED.search(path):
            assert documented[path] == endpoint.methods - {"HEAD"}, path
