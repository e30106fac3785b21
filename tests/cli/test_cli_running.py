"""`gateway status` and `gateway reload` beside a running gateway."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from support.config_file import edit
from support.processes.gateway import GatewayProcess, gateway_process
from support.running_gateway import ADMIN_TOKEN

from examples.ports import free_port
from gateway.cli import main

pytestmark = pytest.mark.system
NO_UPSTREAM = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with gateway_process(
        tmp_path_factory.mktemp("gateway"), NO_UPSTREAM, reload={"watch": False}
    ) as running:
        yield running


def run(gateway: GatewayProcess, *arguments: str) -> int:
    """Run a command on the configuration of the gateway."""
    return main([*arguments, "-c", str(gateway.config)])


def test_status_is_shown_with_the_traffic(
    gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(gateway, "status") == 0
    shown = capsys.readouterr().out
    assert f"admin listener       {gateway.admin_url}\n" in shown
    assert "status               ready\n" in shown
    assert "requests per second" in shown
    assert run(gateway, "status", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["overview"]["workers"]) == ("ready", 1)


def test_status_needs_no_token(
    gateway: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(f'admin: {{port: {gateway.admin_port}, token: "${{NOT_SET}}"}}\n')
    assert main(["status", "-c", str(config)]) == 0
    assert "requests per second" not in capsys.readouterr().out
    assert main(["reload", "-c", str(config)]) == 1
    assert "a token of the admin API is needed" in capsys.readouterr().err
    token = tmp_path / "token"
    token.write_text(ADMIN_TOKEN)
    url = ["--url", gateway.admin_url]
    assert main(["status", *url, "--token-file", str(token), "-c", "nowhere.yaml"]) == 0
    assert "requests per second" in capsys.readouterr().out


def test_reload_shows_what_changed_or_why_not(
    gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    before = gateway.config.read_text()
    assert run(gateway, "reload") == 0
    assert "nothing has changed" in capsys.readouterr().out
    edit(gateway.config, lambda config: config["provider"].update(token_ttl="30m"))
    assert run(gateway, "reload") == 0
    assert "provider.token_ttl: " in capsys.readouterr().out
    gateway.config.write_text(before + "\nnope: 1\n")
    assert run(gateway, "reload") == 1
    assert "nope: unknown key" in capsys.readouterr().err
    gateway.config.write_text(before)
    edit(gateway.config, lambda config: config["provider"].update(token_ttl="soon"))
    assert run(gateway, "reload") == 1
    errors = capsys.readouterr().err
    assert "the previous configuration stays active" in errors
    assert "provider.token_ttl: expected a duration" in errors
    gateway.config.write_text(before)
    assert run(gateway, "reload") == 0
    assert run(gateway, "status") == 0
    assert "last reload" in capsys.readouterr().out


def test_gateway_that_does_not_run_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["status", "--url", url]) == 1
    assert f"no gateway responds at {url.removeprefix('http://')}: " in capsys.readouterr().err
    assert main(["status", "--url", "https://x"]) == 1
    assert "expected http://HOST:PORT" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def respond() -> None:
            accepted, _ = other.accept()
            accepted.recv(1000)
            accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            accepted.close()

        thread = threading.Thread(target=respond)
        thread.start()
        assert main(["status", "--url", f"http://127.0.0.1:{port}"]) == 1
        thread.join()
    assert "is not the admin listener of a gateway" in capsys.readouterr().err
