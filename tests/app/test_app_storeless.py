"""`store: none`: a gateway that only verifies tokens of others, without a file and a provider."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import yaml
from support.deadlines import until
from support.jose_values import make_key
from support.processes.gateway import GatewayProcess
from support.running_gateway import ADMIN_TOKEN, RunningGateway
from support.servers.issuer import issuer
from support.servers.raw_upstream import RawUpstream

from gateway.app.gateway import Gateway
from gateway.cli import main
from gateway.config import ConfigError, load, parse_config
from gateway.oauth.jose import sign_jwt
from gateway.oauth.models import Record, StoreRejectedError
from gateway.store.none import NoStore

AUDIENCE = "https://orders.example"
KEY = make_key()


def make_storeless(upstream_url: str, issuer_url: str, **sections: Any) -> dict[str, Any]:
    issued_by = {"name": "login", "issuer": issuer_url, "audience": [AUDIENCE]}
    return {
        "listen": {"host": "127.0.0.1", "port": 0},
        "admin": {"host": "127.0.0.1", "port": 0, "token": ADMIN_TOKEN},
        "store": "none",
        "access_log": {"path": "off"},
        "provider": {"issuer": "http://gateway.test", "scopes": ["orders:read"]},
        "jwt_issuers": [issued_by],
        "upstreams": {"main": {"targets": [upstream_url]}},
        "routes": [
            {
                "name": "api", "match": {"path": "/"}, "upstream": "main",
                "scopes": ["orders:read"],
            }
        ],
    } | sections  # fmt: skip


def make_token(issuer_url: str, **claims: Any) -> str:
    now = int(time.time())
    said = {
        "iss": issuer_url, "aud": AUDIENCE, "sub": "a", "client_id": "shop",
        "scope": "orders:read", "iat": now, "exp": now + 600,
    } | claims  # fmt: skip
    return sign_jwt({"alg": "ES256", "kid": str(KEY.kid), "typ": "at+jwt"}, said, KEY)


@pytest.fixture
async def storeless(
    tmp_path: Path, upstream: RawUpstream
) -> AsyncIterator[tuple[RunningGateway, str]]:
    """A gateway in one process, and the URL of the issuer that it trusts."""
    async with issuer(KEY) as trusted, aiohttp.ClientSession() as session:
        text = yaml.safe_dump(make_storeless(upstream.url, trusted.url))
        gateway = Gateway(parse_config(text, file="gateway.yaml", directory=tmp_path))
        await gateway.start()
        yield RunningGateway(gateway, tmp_path, session), trusted.url
        await gateway.stop()
    assert list(tmp_path.iterdir()) == [], "it has written a file"


async def status(gateway: RunningGateway, path: str, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with gateway.session.get(gateway.url(path), headers=headers) as response:
        await response.read()
        return response.status, response.headers.get("WWW-Authenticate", "")


async def test_tokens_of_the_issuer_pass_and_no_others(
    storeless: tuple[RunningGateway, str],
) -> None:
    gateway, issuer_url = storeless
    token = make_token(issuer_url)
    await until(lambda: _is_200(gateway, token))
    assert (await status(gateway, "/orders", make_token(issuer_url, scope="other")))[0] == 403
    assert (await status(gateway, "/orders", make_token(issuer_url, aud="x")))[0] == 401
    assert (await status(gateway, "/orders", "opaque-token"))[0] == 401
    assert (await status(gateway, "/orders"))[0] == 401


async def _is_200(gateway: RunningGateway, token: str) -> bool:
    return (await status(gateway, "/orders", token))[0] == 200


async def test_there_is_no_provider_and_its_paths_belong_to_the_application(
    storeless: tuple[RunningGateway, str],
) -> None:
    gateway, issuer_url = storeless
    token = make_token(issuer_url)
    await until(lambda: _is_200(gateway, token))
    for path in ("/token", "/createClient", "/validate", "/jwks.json", "/register"):
        assert (await status(gateway, path, token))[0] == 200, "the upstream responds"
    _, challenge = await status(gateway, "/orders")
    url = "/.well-known/oauth-protected-resource"
    assert f'resource_metadata="http://gateway.test{url}/orders"' in challenge
    async with gateway.session.get(gateway.url(url)) as response:
        assert (await response.json())["authorization_servers"] == [issuer_url]


async def test_probes_metrics_and_the_admin_api_work_without_clients_and_console(
    storeless: tuple[RunningGateway, str],
) -> None:
    gateway, _ = storeless
    await until(lambda: _is_ready(gateway))
    _, ready = await gateway.call_api("GET", "/readyz")
    assert "store" not in ready["checks"]
    assert (await gateway.call_api("GET", "/healthz"))[0] == 200
    assert "gateway_requests_total" in await gateway.metrics()
    assert (await gateway.call_api("GET", "/api/v1/routes"))[0] == 200
    assert (await gateway.call_api("GET", "/api/v1/audit"))[1]["entries"] == []
    assert (await gateway.call_api("GET", "/api/v1/clients"))[0] == 404
    assert (await gateway.call_api("GET", "/console"))[0] == 404
    _, index = await gateway.call_api("GET", "/")
    assert "There is no store." in index["links"][3]["description"]
    _, document = await gateway.call_api("GET", "/openapi.json")
    assert "/token" not in document["paths"]
    assert "/api/v1/clients" not in document["paths"]


async def _is_ready(gateway: RunningGateway) -> bool:
    return (await gateway.call_api("GET", "/readyz"))[0] == 200


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"provider": {"token_ttl": "1h"}}, "provider.token_ttl: needs a store"),
        ({"provider": {"registration": {"mode": "off"}}}, "provider.registration: needs a store"),
        ({"provider": {"users": {"source": "local"}}}, "provider.users: needs a store"),
        ({"provider": {"seal_key_file": "k"}}, "provider.seal_key_file: needs a store"),
        ({"clients": {}}, "clients: needs a store"),
        ({"clients_owner": "team"}, "clients_owner: needs a store"),
        ({"provider": {"dpop": {"require_nonce": True}}}, "require_nonce: needs provider.seal_key"),
        (
            {"listen": {"tls": {"acme": {"domains": ["a.example"], "email": "a@a.example"}}}},
            "listen.tls.acme: needs a store",
        ),
        ({"jwt_issuers": []}, "jwt_issuers: is required with store: none"),
    ],
)
def test_what_needs_a_store_is_rejected_with_file_line_and_key(
    tmp_path: Path, sections: dict[str, Any], problem: str
) -> None:
    file = tmp_path / "gateway.yaml"
    config = make_storeless("http://127.0.0.1:9", "https://login.example")
    config["provider"].pop("scopes")
    config["routes"][0].pop("scopes")
    file.write_text(yaml.safe_dump(config | sections, sort_keys=False))
    with pytest.raises(ConfigError) as raised:
        load(file)
    (found,) = [str(one) for one in raised.value.problems if problem in str(one)]
    section = next(iter(sections))
    line = found.removeprefix(f"{file}:").partition(":")[0]
    lines = file.read_text().splitlines()
    assert any(section in text for text in lines[: int(line)])


def test_routes_that_need_clients_are_rejected(tmp_path: Path) -> None:
    config = make_storeless("http://127.0.0.1:9", "https://login.example")
    config["routes"][0]["credentials"] = ["bearer", "api_key"]
    with pytest.raises(ConfigError, match=r"routes\[0\].credentials: api_key needs a store"):
        parse_config(yaml.safe_dump(config), file="gateway.yaml")


def test_commands_on_clients_say_that_there_is_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump(make_storeless("http://127.0.0.1:9", "https://login.example")))
    for command in (
        ["client", "list"], ["client", "create"], ["token", "issue", "x"], ["admin", "list"],
        ["user", "list"], ["backup", str(tmp_path / "copy.db")],
    ):  # fmt: skip
        assert main([*command, "-c", str(file)]) == 1, command
        assert "`store: none`" in capsys.readouterr().err, command


async def test_nothing_that_has_to_be_kept_is_taken() -> None:
    store = NoStore(time.time)
    record = Record("dpop-proof", "key", "", b"", None)
    for write in (store.records.add_record, store.records.put_record):
        with pytest.raises(StoreRejectedError):
            await write(record)


async def test_process_with_workers_writes_no_file(tmp_path: Path, upstream: RawUpstream) -> None:
    async with issuer(KEY) as trusted:
        sections = make_storeless(upstream.url, trusted.url, workers=2)
        process = GatewayProcess(tmp_path, upstream.url)
        sections["listen"]["port"] = process.port
        sections["admin"]["port"] = process.admin_port
        process.config.write_text(yaml.safe_dump(sections))
        before = set(tmp_path.iterdir())
        await asyncio.to_thread(process.start)
        try:
            headers = {"Authorization": f"Bearer {make_token(trusted.url)}"}
            async with httpx.AsyncClient() as client:
                response = await client.get(f"{process.url}/orders", headers=headers)
                assert response.status_code == 200
        finally:
            assert await asyncio.to_thread(process.stop) == 0
        assert set(tmp_path.iterdir()) == before | {tmp_path / "stderr.log"}
        assert "Traceback" not in process.errors()
