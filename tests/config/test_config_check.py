"""`gateway check` and `gateway run` find what a configuration names and this host lacks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import Run
from support.deadlines import scaled
from support.processes.postgresql import PostgresServer
from support.running_gateway import make_config

from gateway.app.build.checks import find_unusable_files
from gateway.app.gateway import Gateway
from gateway.app.start_errors import StartError
from gateway.cli import main
from gateway.config import load

ROOT = Path(__file__).parents[2]


def write(path: Path, **sections: Any) -> Path:
    config = yaml.safe_load(make_config(path.parent, **sections))
    path.write_text(yaml.safe_dump(config))
    return path


def test_paths_are_relative_to_the_configuration_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    file = write(
        tmp_path / "conf" / "g.yaml",
        store="sqlite:///./g.db",
        access_log={"path": "a.log"},
        listen={"tls": {"cert": "c.pem", "key": "/abs/k.pem"}},
        provider={"seal_key_file": "g.key"},
        upstreams={"main": {"tls": {"ca": "ca.pem"}}},
    )
    monkeypatch.chdir(tmp_path)
    for name, start in ((str(file), str(tmp_path / "conf")), ("conf/g.yaml", "conf")):
        config = load(Path(name)).config
        assert config.store == f"sqlite:///{start}/g.db"
        assert config.access_log.path == f"{start}/a.log"
        assert config.provider.seal_key_file == f"{start}/g.key"
        tls, upstream = config.listen.tls, config.upstreams["main"].tls
        assert tls is not None
        assert upstream is not None
        assert (tls.cert, tls.key, upstream.ca) == (
            f"{start}/c.pem",
            "/abs/k.pem",
            f"{start}/ca.pem",
        )
    write(file, store="rediss://:p%40w@127.0.0.1/0?ca=ca.pem&prefix=a", access_log={"path": "-"})
    config = load(Path("conf/g.yaml")).config
    assert config.store == "rediss://:p%40w@127.0.0.1/0?ca=conf%2Fca.pem&prefix=a"
    assert config.access_log.path == "-"
    file.write_text("provider: {registration: {mode: 'off'}}\n")
    assert load(file).config.store == f"sqlite:///{tmp_path}/conf/gateway.db"
    assert load(file).config.provider.seal_key_file == f"{tmp_path}/conf/gateway.key"


def test_store_that_an_earlier_version_made_elsewhere_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    file = write(tmp_path / "conf" / "g.yaml", store="sqlite:///g.db")
    monkeypatch.chdir(tmp_path)
    assert find_unusable_files(load(file)) == []
    (tmp_path / "g.db").touch()
    (found,) = find_unusable_files(load(file))
    assert found.key == "store"
    assert f"but one at {tmp_path}/g.db: paths are relative to the configuration" in found.message
    (tmp_path / "conf" / "g.db").touch()
    assert find_unusable_files(load(file)) == []


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs `gateway check` in this process; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def check_one(*arguments: str) -> tuple[int, str, str]:
        status = main(["check", *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return check_one


def start(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run `gateway run`, which ends at once."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", "run", "-c", "g.yaml"],
        cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False, timeout=scaled(),
    )  # fmt: skip


def start_error(directory: Path) -> StartError:
    """Why a gateway does not start, without a process for it."""
    with pytest.raises(StartError) as failed:
        asyncio.run(Gateway(load(directory / "g.yaml").config).start())
    return failed.value


def test_port_in_use_names_its_key(tmp_path: Path, check: Run) -> None:
    for section in ("listen", "admin", "authz"):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            authz = {"dialect": "nginx", "trusted_proxies": ["127.0.0.1/32"], "port": 0}
            sections: dict[str, Any] = {"authz": authz}
            sections[section] = {**sections.get(section, {}), "port": port}
            write(tmp_path / "g.yaml", **sections)
            failed = start_error(tmp_path)
            status, _, warnings = check("g.yaml")
            online, _, errors = check("g.yaml", "--online")
        assert failed.place == (section, "port")
        assert "in use" in failed.reason
        # The gateway that this configuration is for may be what has it.
        assert status == 0
        assert re.search(rf"g\.yaml:\d+: {section}\.port: warning: .*in use", warnings)
        assert online == 1
        assert re.search(rf"g\.yaml:\d+: {section}\.port: .*in use", errors)


def test_host_that_is_not_here_is_found(tmp_path: Path, check: Run) -> None:
    for host in ("192.0.2.1", "nowhere.invalid"):
        write(tmp_path / "g.yaml", admin={"host": host})
        status, _, errors = check("-c", "g.yaml")
        assert status == 1
        assert re.search(r"g\.yaml:\d+: admin\.host: ", errors)
        assert start_error(tmp_path).place == ("admin", "host")
    started = start(tmp_path)
    assert started.returncode == 1
    assert re.search(r"g\.yaml:\d+: admin\.host: ", started.stderr)


def test_check_online_reaches_store_names_and_issuers(tmp_path: Path, check: Run) -> None:
    issuer = {"name": "a", "issuer": "https://i.example", "jwks_uri": "http://127.0.0.1:9/k",
              "audience": ["a"]}  # fmt: skip
    discovered = {"name": "d", "issuer": "http://127.0.0.1:9", "audience": ["a"]}
    server = {
        "name": "b",
        "endpoint": "http://127.0.0.1:9/i",
        "client_id": "a",
        "client_secret": "s",
    }
    oidc = {"issuer": "http://127.0.0.1:9", "client_id": "a", "client_secret": "s"}
    dns = {"servers": ["127.0.0.1:9"]}
    write(
        tmp_path / "g.yaml", upstream_url="", store="redis://127.0.0.1:9/0",
        upstreams={"main": {"targets": ["http://nowhere.invalid:80"], "dns": dns}},
        jwt_issuers=[issuer, discovered], introspection_servers=[server],
        provider={"users": {"source": "oidc", "oidc": oidc}},
    )  # fmt: skip
    assert check("g.yaml")[0] == 0
    status, output, _ = check("g.yaml", "--online", "--json")
    assert status == 1
    found = json.loads(output)
    assert found["ok"] is False
    assert {one["key"] for one in found["problems"]} == {
        "store", "upstreams.main.targets[0]", "jwt_issuers[0].jwks_uri",
        "jwt_issuers[1].issuer", "introspection_servers[0].endpoint", "provider.users.oidc.issuer",
    }  # fmt: skip


def test_check_online_changes_nothing_in_a_postgresql_and_names_one_that_is_away(
    tmp_path: Path, empty_postgresql: PostgresServer, check: Run
) -> None:
    """The schema is that of the gateway that runs, which may be an earlier version."""
    write(
        tmp_path / "g.yaml", upstream_url="http://127.0.0.1:9", store=empty_postgresql.url,
        rate_limit={"store": empty_postgresql.url},
    )  # fmt: skip
    status, _, errors = check("g.yaml", "--online")
    assert status == 0, errors
    assert empty_postgresql.sql("SELECT to_regnamespace('gateway') IS NULL") == "t"
    away = "postgresql://gateway:a-secret@127.0.0.1:9/gateway"
    write(tmp_path / "g.yaml", store=away, rate_limit={"store": away})
    _, output, errors = check("g.yaml", "--online", "--json")
    assert {one["key"] for one in json.loads(output)["problems"]} == {
        "store", "rate_limit.store",
    }  # fmt: skip
    assert "127.0.0.1" in output
    assert "a-secret" not in output + errors


def test_check_warns_of_what_works_and_is_not_meant(tmp_path: Path, check: Run) -> None:
    write(
        tmp_path / "g.yaml",
        provider={"registration": {"mode": "open", "token": None}, "issuer": "http://a.example"},
        trusted_proxies=["10.0.0.0/8", "192.0.2.1/32", "unix"],
        routes=[{"name": "a", "match": {"path": "/a/:id"}, "upstream": "main"}],
    )
    status, output, _ = check("g.yaml", "--json")
    assert status == 0
    found = json.loads(output)
    assert {one["key"] for one in found["warnings"]} == {
        "provider.registration.mode", "provider.issuer", "trusted_proxies[0]",
        "routes[0].match.path",
    }  # fmt: skip
    assert (found["ok"], found["routes"], found["upstreams"]) == (True, 1, 1)
