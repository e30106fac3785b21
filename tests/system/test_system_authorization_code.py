"""The authorization code grant by clients that others wrote, against live gateways."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from requests_oauthlib import OAuth2Session
from support.clients.npm_clients import install_npm_clients
from support.clients.person import PASSWORD, allow, allow_with
from support.commands import run_beside
from support.deadlines import scaled, wait_until
from support.processes.gateway import GatewayProcess, gateway_process
from support.processes.redis import RedisServer
from support.running_gateway import ADMIN_TOKEN
from support.servers.raw_upstream import RawUpstream, thread_upstream
from support.tiers import slow

from examples.ports import free_port

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
NODE = Path(__file__).parent / "node"
WEB, NATIVE = "https://app.example/callback", "http://127.0.0.1:51004/callback"
VERIFIER = "a-verifier-that-is-long-enough-for-rfc-7636-0123456789"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with thread_upstream() as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def gateway(
    request: pytest.FixtureRequest, upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway of two workers, on each kind of store."""
    directory = tmp_path_factory.mktemp("gateway")
    provider = {
        "grant_types": ["client_credentials", "authorization_code"],
        "seal_key_file": str(directory / "gateway.key"),
        "refresh_tokens": {"strategy": "rotating"},
    }
    redis = RedisServer(directory).start() if request.param == "redis" else None
    store = {"store": f"{redis.url}/0"} if redis else {}
    try:
        with gateway_process(
            directory, upstream.url, is_own_issuer=True, provider=provider, workers=2, **store
        ) as running:
            prepare(running)
            yield running
    finally:
        if redis:
            redis.stop()


def prepare(gateway: GatewayProcess) -> None:
    run_beside(gateway.config, "user", "add", "alice", "--password-stdin", stdin=PASSWORD)
    grants = ["authorization_code", "refresh_token"]
    for members in (
        {"client_id": "web", "client_secret": "web-secret", "redirect_uris": [WEB]},
        {
            "client_id": "app",
            "token_endpoint_auth_method": "none",
            "redirect_uris": ["http://127.0.0.1/callback"],
        },
    ):
        response = httpx.post(
            f"{gateway.admin_url}/api/v1/clients",
            json={"grant_types": grants, **members},
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        )
        assert response.status_code == 201, response.text


def test_authlib_runs_the_code_grant(gateway: GatewayProcess, upstream: RawUpstream) -> None:
    session = AuthlibSession(
        "app", token_endpoint_auth_method="none", redirect_uri=NATIVE, scope="orders:read",
        code_challenge_method="S256",
    )  # fmt: skip
    url, state = session.create_authorization_url(
        f"{gateway.url}/authorize", code_verifier=VERIFIER
    )
    response = allow(url)
    token = session.fetch_token(
        f"{gateway.url}/token", authorization_response=response, state=state, code_verifier=VERIFIER
    )
    assert token["scope"] == "orders:read"
    assert session.get(f"{gateway.url}/api/x").text == "ok"
    received = upstream.requests[-1]
    assert received.all(b"x-token-subject") == [b"alice"]
    assert received.all(b"x-client-id") == [b"app"]
    renewed = session.refresh_token(f"{gateway.url}/token")
    assert renewed["access_token"] != token["access_token"]
    session.close()


def test_requests_oauthlib_runs_the_code_grant(
    gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    with OAuth2Session("web", redirect_uri=WEB, scope=["orders:read"], pkce="S256") as session:
        url, _ = session.authorization_url(f"{gateway.url}/authorize")
        response = allow(url)
        token = session.fetch_token(
            f"{gateway.url}/token", client_secret="web-secret", authorization_response=response
        )
        assert token["scope"] == ["orders:read"]
        assert session.get(f"{gateway.url}/api/x").text == "ok"


def test_who_is_signed_in_and_allowed_it_is_asked_nothing_by_any_worker(
    gateway: GatewayProcess,
) -> None:
    session = AuthlibSession("web", redirect_uri=WEB, code_challenge_method="S256")
    url, _ = session.create_authorization_url(f"{gateway.url}/authorize", code_verifier=VERIFIER)
    session.close()
    with httpx.Client() as browser:
        allow_with(browser, url)
        cookies = {cookie.name: cookie.value or "" for cookie in browser.cookies.jar}
    for _ in range(8):  # each on a connection of its own, so on either worker
        response = httpx.get(url, cookies=cookies)
        assert response.headers["Location"].startswith(f"{WEB}?code="), response.text


def test_a_code_that_one_worker_took_is_used_up_for_all(gateway: GatewayProcess) -> None:
    session = AuthlibSession("web", "web-secret", redirect_uri=WEB, code_challenge_method="S256")
    url, _ = session.create_authorization_url(f"{gateway.url}/authorize", code_verifier=VERIFIER)
    code = parse_qs(urlsplit(allow(url)).query)["code"][0]
    session.close()
    form = {
        "grant_type": "authorization_code", "code": code, "redirect_uri": WEB,
        "code_verifier": VERIFIER,
    }  # fmt: skip

    def show() -> httpx.Response:
        return httpx.post(f"{gateway.url}/token", data=form, auth=("web", "web-secret"))

    given = show()
    assert given.status_code == 200
    token = {"Authorization": f"Bearer {given.json()['access_token']}"}
    assert httpx.get(f"{gateway.url}/api/x", headers=token).status_code == 200
    assert [show().json()["error"] for _ in range(4)] == ["invalid_grant"] * 4
    refused_by_all(gateway, token)


def test_a_deleted_user_is_out_within_a_second(gateway: GatewayProcess) -> None:
    run_beside(gateway.config, "user", "add", "carol", "--password-stdin", stdin=PASSWORD)
    session = AuthlibSession("web", "web-secret", redirect_uri=WEB, code_challenge_method="S256")
    url, _ = session.create_authorization_url(f"{gateway.url}/authorize", code_verifier=VERIFIER)
    with httpx.Client() as browser:
        response = allow_with(browser, url, username="carol")
        given = session.fetch_token(
            f"{gateway.url}/token", authorization_response=response, code_verifier=VERIFIER
        )
        token = {"Authorization": f"Bearer {given['access_token']}"}
        for _ in range(4):
            assert httpx.get(f"{gateway.url}/api/x", headers=token).status_code == 200
        run_beside(gateway.config, "user", "delete", "carol")
        refused_by_all(gateway, token)
        assert 'name="password"' in browser.get(url).text, "the session is over"
        form = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
        refused = httpx.post(f"{gateway.url}/token", data=form, auth=("web", "web-secret"))
        assert refused.json()["error"] == "invalid_grant"
    session.close()


def is_ready(admin_port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{admin_port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def refused_by_all(gateway: GatewayProcess, token: dict[str, str]) -> None:
    """No worker takes a token any more: each connection may be the other's."""

    def statuses() -> set[int]:
        return {httpx.get(f"{gateway.url}/api/x", headers=token).status_code for _ in range(8)}

    wait_until(lambda: statuses() == {401})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the clients from npm."""
    return install_npm_clients(tmp_path_factory.mktemp("node"))


@slow("npm")
@pytest.mark.parametrize("script", ["oauth4webapi", "openid-client", "simple-oauth2"])
def test_clients_from_npm_run_the_code_grant(
    gateway: GatewayProcess, node: Path, script: str
) -> None:
    shutil.copy(NODE / f"{script}-code.mjs", node / f"{script}-code.mjs")
    process = subprocess.Popen(
        ["node", f"{script}-code.mjs"],
        cwd=node, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "GATEWAY": gateway.url},
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert url, process.stderr.read()
        output, errors = process.communicate(allow(url) + "\n", timeout=scaled(60))
    assert (process.returncode, output) == (0, "all is well\n"), errors


@slow("tutorials")
def test_the_walk_through_of_the_documentation_works(upstream: RawUpstream, tmp_path: Path) -> None:
    for tool in ("curl", "openssl", "bash"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is missing: apt-get install {tool}")
    text = (ROOT / "docs/reference/oauth.md").read_text()
    section = text.partition("## Users: the")[2].partition("### Signing in")[0]
    setup, walk = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    port, admin_port = free_port(), free_port()
    config = tmp_path / "config" / "people.yaml"
    config.parent.mkdir()
    example = (ROOT / "config/people.yaml").read_text()
    example = example.replace("8080", str(port)).replace("9090", str(admin_port))
    config.write_text(example.replace("http://127.0.0.1:9001", upstream.url))
    setup = setup.replace("gateway ", f"{sys.executable} -m gateway ")
    commands, _, _ = setup.partition(f"{sys.executable} -m gateway run")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ISSUER": f"http://127.0.0.1:{port}"}

    def bash(script: str) -> str:
        ran = subprocess.run(
            ["bash", "-euc", script],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=scaled(60),
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    bash(commands)
    gateway = subprocess.Popen(
        [sys.executable, "-m", "gateway", "run", "-c", str(config)],
        cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: is_ready(admin_port))
        response = bash(walk.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
        assert '"token_type":"Bearer"' in response
        assert '"refresh_token":' in response
    finally:
        gateway.send_signal(signal.SIGINT)  # at once
        gateway.wait(timeout=scaled(40))
