"""The published OpenAPI document, and schemathesis working through it against a live gateway."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.deadlines import scaled
from support.json_schemas import validator_of
from support.processes.gateway import GatewayProcess, gateway_process
from support.running_gateway import ADMIN_TOKEN, REGISTRATION_TOKEN
from support.tiers import slow

pytestmark = pytest.mark.system

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    provider = {
        "seal_key_file": str(directory / "gateway.key"),
        "failed_client_limit": {"failures": 1000000},
        "grant_types": [
            "client_credentials",
            "authorization_code",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ],
        "refresh_tokens": {"strategy": "rotating"},
    }
    with gateway_process(
        directory, "http://127.0.0.1:9", is_own_issuer=True, provider=provider
    ) as running:
        running.create_client()
        yield running


def test_document_names_every_path_that_the_gateway_serves(gateway: GatewayProcess) -> None:
    document = httpx.get(f"{gateway.admin_url}/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    discovered = httpx.get(f"{gateway.url}/.well-known/oauth-authorization-server").json()
    for name, url in discovered.items():
        if name.endswith("_endpoint") or name == "jwks_uri":
            path = url.removeprefix(gateway.url)
            assert document["paths"][path]["servers"] == [{"url": gateway.url}]
    for schema in document["components"]["schemas"].values():
        validator_of(schema)
    assert "registration_token_digest" not in str(document)


def test_every_route_of_the_admin_api_is_documented(gateway: GatewayProcess) -> None:
    document = httpx.get(f"{gateway.admin_url}/openapi.json").json()
    source = (Path(__file__).parents[2] / "docs" / "reference" / "admin-api.md").read_text()
    reported = re.findall(r"^\| `([A-Z]+) (/api/v1/[^`?]*)", source, re.MULTILINE)
    assert len(reported) >= 9
    for method, path in reported:
        named = re.sub(r"/ID\b", "/CLIENT_ID", path)
        served = re.sub(r"/([A-Z_]+)", lambda name: f"/{{{name[1].lower()}}}", named)
        assert method.lower() in document["paths"][served]


@slow("schemathesis")
@pytest.mark.parametrize(
    ("paths", "authorization"),
    [
        ("^/(api|healthz|readyz|openapi)", f"Bearer {ADMIN_TOKEN}"),
        ("^/(token|revoke|introspect)$", "Basic " + base64.b64encode(b"shop:shop-secret").decode()),
        ("^/(createClient|register|validate|jwks|.well-known)", f"Bearer {REGISTRATION_TOKEN}"),
    ],
    ids=["admin", "tokens", "registration"],
)
def test_schemathesis_finds_no_fault(
    gateway: GatewayProcess, tmp_path: Path, paths: str, authorization: str
) -> None:
    base = gateway.admin_url if "api" in paths else gateway.url
    ran = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.admin_url}/openapi.json",
            "--url", base, "--include-path-regex", paths,
            "--header", f"Authorization: {authorization}",
            "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
            "--max-examples", "10", "--seed", "8", "--generation-deterministic",
            "--suppress-health-check", "all", "--no-color", "--warnings", "off",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=scaled(240),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert "Traceback" not in gateway.errors()
