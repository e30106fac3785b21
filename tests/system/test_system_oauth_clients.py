"""OAuth clients that others wrote, each grant and each way to authenticate, from outside."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import RSAKey
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session
from support.clients.npm_clients import install_npm_clients
from support.deadlines import scaled
from support.jose_values import jwks, make_certificate, make_key, make_proof
from support.processes.gateway import GatewayProcess, gateway_process
from support.refreshing import begin, refresh_token
from support.running_gateway import ADMIN_TOKEN, REGISTRATION_TOKEN
from support.servers.raw_upstream import RawUpstream, thread_upstream
from support.tiers import slow

from gateway.cli.provider import with_provider
from gateway.oauth.server import AuthorizationServer

pytestmark = pytest.mark.system

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with thread_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("gateway")
    provider = {
        "grant_types": ["client_credentials", EXCHANGE],
        "seal_key_file": str(directory / "gateway.key"),
        "refresh_tokens": {"strategy": "rotating"},
    }
    with gateway_process(directory, upstream.url, is_own_issuer=True, provider=provider) as running:
        create_client(running, grant_types=["client_credentials", EXCHANGE, "refresh_token"])
        yield running


def create_client(gateway: GatewayProcess, client_id: str = "shop", **members: Any) -> None:
    response = httpx.post(
        f"{gateway.admin_url}/api/v1/clients",
        json={"client_id": client_id, "client_secret": "shop-secret"} | members,
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    )
    assert response.status_code == 201, response.text


def begin_family(gateway: GatewayProcess) -> str:
    """The first refresh token of a grant that a user gave to the shop."""

    async def work(server: AuthorizationServer) -> str:
        return refresh_token(await begin(server))

    return with_provider(gateway.config, work)


@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post"])
def test_authlib_refreshes(gateway: GatewayProcess, way: str) -> None:
    first = begin_family(gateway)
    with AuthlibSession("shop", "shop-secret", token_endpoint_auth_method=way) as session:
        second = session.refresh_token(f"{gateway.url}/token", refresh_token=first)
        assert second["refresh_token"] != first
        session.refresh_token(f"{gateway.url}/token")
        assert session.get(f"{gateway.url}/api/x").text == "ok"
        with pytest.raises(OAuthError, match="invalid_grant"):
            session.refresh_token(f"{gateway.url}/token", refresh_token=first)
        assert session.get(f"{gateway.url}/api/x").status_code == 401


def test_requests_oauthlib_refreshes_by_itself(
    gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    kept: list[dict[str, Any]] = []
    expired = {"access_token": "x", "refresh_token": begin_family(gateway), "expires_in": -1}
    with OAuth2Session(
        "shop",
        token=expired,
        auto_refresh_url=f"{gateway.url}/token",
        auto_refresh_kwargs={"client_id": "shop", "client_secret": "shop-secret"},
        token_updater=kept.append,
    ) as session:
        assert session.get(f"{gateway.url}/api/x").text == "ok"
        assert kept[0]["refresh_token"] != expired["refresh_token"]
        session.refresh_token(f"{gateway.url}/token", client_id="shop", client_secret="shop-secret")
        assert session.get(f"{gateway.url}/api/x").text == "ok"


@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post"])
def test_authlib_introspects_exchanges_and_revokes(gateway: GatewayProcess, way: str) -> None:
    session = AuthlibSession("shop", "shop-secret", token_endpoint_auth_method=way)
    token = session.fetch_token(f"{gateway.url}/token", grant_type="client_credentials")
    described = session.introspect_token(f"{gateway.url}/introspect", token["access_token"]).json()
    assert (described["active"], described["client_id"]) == (True, "shop")
    exchanged = session.fetch_token(
        f"{gateway.url}/token", grant_type=EXCHANGE,
        subject_token=token["access_token"], subject_token_type=ACCESS_TOKEN,
    )  # fmt: skip
    assert exchanged["issued_token_type"] == ACCESS_TOKEN
    assert session.get(f"{gateway.url}/api/x").text == "ok"
    session.revoke_token(f"{gateway.url}/revoke", exchanged["access_token"])
    response = httpx.get(
        f"{gateway.url}/api/x", headers={"Authorization": f"Bearer {exchanged['access_token']}"}
    )
    assert response.status_code == 401
    session.close()


@pytest.mark.filterwarnings("ignore::authlib.deprecate.AuthlibDeprecationWarning")
def test_authlib_signs_instead_of_sending_a_secret(gateway: GatewayProcess) -> None:
    key = make_key("RS256")
    assert isinstance(key, RSAKey)
    create_client(
        gateway, "signer", client_secret=None,
        token_endpoint_auth_method="private_key_jwt", jwks=jwks(key),
    )  # fmt: skip
    endpoint = f"{gateway.url}/token"
    session = AuthlibSession(
        "signer", key.as_pem(private=True).decode(), token_endpoint_auth_method="private_key_jwt"
    )
    session.register_client_auth_method(PrivateKeyJWT(endpoint, alg="RS256"))
    for _ in range(2):
        token = session.fetch_token(endpoint, grant_type="client_credentials")
        assert token["token_type"] == "Bearer"
    assert session.get(f"{gateway.url}/api/x").text == "ok"
    session.close()


def test_requests_oauthlib_exchanges_and_revokes(
    gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    client = BackendApplicationClient("shop")
    with OAuth2Session(client=client) as session:
        token = session.fetch_token(
            f"{gateway.url}/token", client_id="shop", client_secret="shop-secret",
            scope=["orders:write"],
        )  # fmt: skip
        assert token["scope"] == ["orders:write"]
        client.grant_type = EXCHANGE
        exchanged = session.fetch_token(
            f"{gateway.url}/token", client_id="shop", client_secret="shop-secret",
            subject_token=token["access_token"], subject_token_type=ACCESS_TOKEN,
        )  # fmt: skip
        assert exchanged["access_token"] != token["access_token"]
        assert session.get(f"{gateway.url}/api/write").text == "ok"
        url, headers, body = client.prepare_token_revocation_request(
            f"{gateway.url}/revoke", exchanged["access_token"]
        )
        response = requests.post(
            url, data=body, headers=headers, auth=("shop", "shop-secret"), timeout=scaled()
        )
        assert response.status_code == 200
        assert session.get(f"{gateway.url}/api/write").status_code == 401


def test_httpx_shows_its_certificate_and_signs_its_requests(
    upstream: RawUpstream, tmp_path: Path
) -> None:
    ca = make_certificate(tmp_path, "ca", is_ca=True)
    server = make_certificate(tmp_path, "server", issuer=ca)
    mine = make_certificate(tmp_path, "billing", issuer=ca)
    tls = {"cert": str(server.cert), "key": str(server.key), "client_ca": str(ca.cert),
           "client_auth": "optional"}  # fmt: skip
    with gateway_process(tmp_path, upstream.url, listen={"tls": tls}) as gateway:
        create_client(
            gateway, "billing", client_secret=None, token_endpoint_auth_method="tls_client_auth",
            tls_client_auth_san_dns="billing.example",
            tls_client_certificate_bound_access_tokens=True,
        )  # fmt: skip
        url = f"https://127.0.0.1:{gateway.port}"
        form = {"grant_type": "client_credentials", "client_id": "billing"}
        with httpx.Client(verify=_context(ca.cert, mine.cert, mine.key)) as client:
            token = client.post(f"{url}/token", data=form).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            assert client.get(f"{url}/api/x", headers=headers).text == "ok"
            key = make_key()
            proof = make_proof(key, "POST", "http://gateway.test/token", time.time())
            bound = client.post(f"{url}/token", data=form, headers={"DPoP": proof}).json()
            assert bound["token_type"] == "DPoP"
        with httpx.Client(verify=_context(ca.cert)) as thief:
            assert thief.get(f"{url}/api/x", headers=headers).status_code == 401


def _context(ca: Path, cert: Path | None = None, key: Path | None = None) -> Any:
    context = ssl.create_default_context(cafile=str(ca))
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the clients from npm, as their lock file names them."""
    return install_npm_clients(tmp_path_factory.mktemp("node"))


@slow("npm")
@pytest.mark.parametrize("script", ["oauth4webapi", "openid-client", "simple-oauth2", "refresh"])
def test_clients_from_npm_find_all_well(gateway: GatewayProcess, node: Path, script: str) -> None:
    families = [begin_family(gateway) for _ in range(3)] if script == "refresh" else []
    shutil.copy(NODE / f"{script}.mjs", node / f"{script}.mjs")
    ran = subprocess.run(
        ["node", f"{script}.mjs"],
        cwd=node, capture_output=True, text=True, timeout=scaled(60),
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin", "GATEWAY": gateway.url,
            "REGISTRATION_TOKEN": REGISTRATION_TOKEN,
            "CLIENT_ID": "shop", "CLIENT_SECRET": "shop-secret",
            "REFRESH_TOKENS": " ".join(families),
        },
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "all is well\n"), ran.stderr
