"""Commands read only the variables that they need: the secrets of a running gateway stay there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import main, needs
from gateway.config import Config
from gateway.config.routes import RouteConfig

CONFIG = """\
listen: {host: "${LISTEN_HOST}", port: "${LISTEN_PORT}", tls: {cert: "${CERT}", key: "${KEY}"}}
admin: {token: "${ADMIN_TOKEN}"}
store: sqlite:///STORE
access_log: {path: "${ACCESS_LOG}"}
tracing: {otlp_endpoint: "${COLLECTOR}"}
provider:
  issuer: https://api.example.com
  scopes: [orders:read]
  default_scopes: [orders:read]
  seal_key: "${SEAL_KEY}"
  registration: {mode: token, token: "${file:/nowhere/registration-token}"}
  users:
    source: oidc
    oidc: {issuer: "https://login.example.com", client_id: x, client_secret: "${OIDC_SECRET}"}
introspection_servers:
  - {name: other, endpoint: "${OTHER_URL}", client_id: x, client_secret: "${OTHER_SECRET}"}
upstreams:
  orders: {targets: ["${ORDERS_URL}"]}
routes:
  - name: orders
    match: {path: /api/orders}
    upstream: orders
    scopes: [orders:read]
    request_headers: {set: {x-api-key: "${ORDERS_KEY}"}}
    rate_limit: {requests: "${ORDERS_RATE}", per: 1s}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG.replace("STORE", f"{tmp_path}/gateway.db"))
    return path


@pytest.mark.parametrize(
    "commands",
    [
        [["client", "create", "--id", "shop"], ["client", "show", "shop"], ["client", "list"]],
        [["client", "create", "--id", "a"], ["client", "rotate", "a"], ["client", "delete", "a"]],
        [["admin", "token", "create", "ci"], ["admin", "list"]],
        [["client", "create", "--id", "a"], ["user", "list"]],
    ],
    ids=["client", "rotate", "admin", "user"],
)
def test_command_beside_a_gateway_needs_none_of_its_secrets(
    commands: list[list[str]], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands:
        assert main([*command, "-c", str(config)]) == 0, capsys.readouterr().err
    # Made by whoever seals something, for want of `provider.seal_key`.
    assert not (config.parent / "gateway.key").exists()


def test_issuing_a_token_needs_the_key_that_may_sign_it(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["client", "create", "--id", "shop", "-c", str(config)]) == 0
    capsys.readouterr()
    assert main(["token", "issue", "shop", "-c", str(config)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "provider.seal_key: the environment variable SEAL_KEY is not set" in line
    monkeypatch.setenv("SEAL_KEY", "x" * 32)
    assert main(["token", "issue", "shop", "-c", str(config)]) == 0


def test_routes_are_explained_without_the_secrets_of_the_provider(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = config.read_text()
    config.write_text("\n".join(line for line in text.splitlines() if "{LISTEN" not in line))
    for name, value in {
        "ACCESS_LOG": "off", "COLLECTOR": "http://127.0.0.1:4318", "ORDERS_KEY": "x",
        "ORDERS_RATE": "5", "ORDERS_URL": "http://127.0.0.1:9001", "OTHER_SECRET": "x",
        "OTHER_URL": "https://other.example.com",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert main(["routes", "-c", str(config)]) == 0, capsys.readouterr().err
    assert main(["explain", "GET", "/api/orders", "-c", str(config)]) == 0, capsys.readouterr().err


def test_running_needs_them_all_and_check_says_so(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "-c", str(config)]) == 1
    errors = capsys.readouterr().err
    for name in ("LISTEN_PORT", "ADMIN_TOKEN", "SEAL_KEY", "ORDERS_URL", "OTHER_SECRET"):
        assert f"the environment variable {name} is not set" in errors
    assert "/nowhere/registration-token can't be read" in errors


def test_mistake_in_what_a_command_needs_is_reported(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().replace("default_scopes: [orders:read]", "nope: 1"))
    assert main(["client", "list", "-c", str(config)]) == 1
    assert "provider.nope: unknown key" in capsys.readouterr().err


def test_parts_that_commands_leave_out_are_parts_of_a_configuration() -> None:
    for path in (*needs.NOT_FOR_STORE, *needs.NOT_FOR_ROUTES):
        fields = RouteConfig.model_fields if path[0] == "routes" else Config.model_fields
        assert str(path[2] if path[0] == "routes" else path[0]) in fields
