"""Clients that people use, from outside, against a gateway process: they know no mercy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests
from authlib.integrations.httpx_client import OAuth2Client
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError
from requests_oauthlib import OAuth2Session
from support.commands import run_beside
from support.deadlines import wait_until
from support.processes.gateway import GatewayProcess, gateway_process
from support.servers.raw_upstream import RawUpstream, thread_upstream

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with thread_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with gateway_process(tmp_path_factory.mktemp("gateway"), upstream.url) as running:
        running.create_client()
        yield running


@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post"])
def test_authlib_gets_a_token_and_uses_it(gateway: GatewayProcess, way: str) -> None:
    with OAuth2Client("shop", "shop-secret", token_endpoint_auth_method=way) as client:
        token = client.fetch_token(f"{gateway.url}/token", grant_type="client_credentials")
        assert token["token_type"] == "Bearer"
        assert client.get(f"{gateway.url}/api/x").text == "ok"
    session = AuthlibSession("shop", "shop-secret", token_endpoint_auth_method=way)
    session.fetch_token(f"{gateway.url}/token", grant_type="client_credentials")
    assert session.get(f"{gateway.url}/api/x").text == "ok"
    session.close()


def test_requests_oauthlib_gets_a_token_and_uses_it(
    gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    with OAuth2Session(client=BackendApplicationClient("shop")) as session:
        token = session.fetch_token(
            f"{gateway.url}/token", client_id="shop", client_secret="shop-secret"
        )
        assert (token["expires_in"], token["scope"]) == (3600, ["orders:read"])
        assert session.get(f"{gateway.url}/api/x").text == "ok"


def test_requests_oauthlib_understands_the_rejection(
    gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    with (
        OAuth2Session(client=BackendApplicationClient("nobody")) as session,
        pytest.raises(InvalidClientError),
    ):
        session.fetch_token(f"{gateway.url}/token", client_id="nobody", client_secret="wrong")


def test_other_http_clients_get_through(gateway: GatewayProcess, upstream: RawUpstream) -> None:
    headers = {"Authorization": f"Bearer {gateway.get_token()}"}
    with requests.Session() as session:
        for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"):
            response = session.request(
                method, f"{gateway.url}/api/x", headers=headers, data=iter([b"a", b"b"])
            )
            assert response.status_code == 200
            assert upstream.requests[-1].body == b"ab"
    assert httpx.get(f"{gateway.url}/api/x", headers=headers).text == "ok"


def test_client_deleted_by_the_command_line_is_refused_within_a_second(
    gateway: GatewayProcess,
) -> None:
    gateway.create_client("brief", "brief-secret")
    headers = {"Authorization": f"Bearer {gateway.get_token('brief', 'brief-secret')}"}
    assert httpx.get(f"{gateway.url}/api/x", headers=headers).status_code == 200
    run_beside(gateway.config, "client", "delete", "brief")
    url = f"{gateway.url}/api/x"
    wait_until(lambda: httpx.get(url, headers=headers).status_code == 401)


def test_no_secret_reaches_a_log_or_the_metrics(gateway: GatewayProcess) -> None:
    canary = "canary-4711"
    token = gateway.get_token()
    for headers in (
        {"Authorization": f"Bearer {canary}"},
        {"Authorization": f"Bearer {token}", "Cookie": canary},
        {"Authorization": f"Basic {canary}"},
    ):
        httpx.get(f"{gateway.url}/api/x?token={canary}", headers=headers)
        httpx.post(f"{gateway.url}/token", data={"client_secret": canary, "a": canary})
        httpx.post(f"{gateway.url}/createClient", headers=headers, json={"client_secret": canary})
    access_log = gateway.directory / "access.log"
    wait_until(lambda: access_log.read_text().count("\n") >= 9)
    shown = access_log.read_text() + gateway.errors()
    shown += httpx.get(f"{gateway.admin_url}/metrics").text
    for secret in (canary, token, "shop-secret"):
        assert secret not in shown


def test_open_registration_is_warned_of_loudly(tmp_path: Path) -> None:
    provider = {"registration": {"mode": "open"}}
    with gateway_process(tmp_path, "http://127.0.0.1:9", provider=provider) as gateway:
        assert httpx.post(f"{gateway.url}/createClient").status_code == 201
    gateway.wait_for_line("WARNING")
    gateway.wait_for_line("OPEN REGISTRATION")
