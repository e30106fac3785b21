"""Certificates by ACME in the configuration: what fits, and what is reported."""

from __future__ import annotations

import asyncio
from importlib import util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.processes.pebble import Pebble
from support.running_gateway import make_config

from gateway.app.reloading.changes import describe_config
from gateway.cli import main
from gateway.config import ConfigError, load, parse_config
from gateway.config.acme import LETS_ENCRYPT_STAGING

NAME = "api.gateway.example.org"


def make_text(directory: Path, acme: Any, **listen: Any) -> str:
    acme = acme if acme is None else {"domains": [NAME]} | acme
    tls = {"acme": acme} if acme is not None else {}
    return make_config(directory, listen={"tls": tls, **listen}, provider={"seal_key": "s" * 40})


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, file="g.yaml")
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


REDIRECT = {"host": "127.0.0.1", "port": 0}


@pytest.mark.parametrize(
    ("acme", "listen", "expected"),
    [
        ({"domains": ["*.example.org"]}, {}, "domains[0]: a wildcard needs the challenge dns-01"),
        ({"domains": ["192.0.2.1"]}, {}, "domains[0]: 192.0.2.1 is an IP address"),
        ({"domains": ["API.example.org."]}, {}, "domains[0]: expected lower case without a dot"),
        ({"domains": ["a..b"]}, {}, "domains[0]: 'a..b' is no host name"),
        ({"domains": ["bücher.example"]}, {}, "write 'xn--bcher-kva.example'"),
        ({"domains": []}, {}, "domains"),
        ({"domains": [NAME, NAME]}, {}, f"domains[1]: '{NAME}' is listed twice"),
        ({"email": "mailto:a@b"}, {}, "email: expected one address"),
        ({"directory": "http://ca.internal/dir"}, {}, "directory: expected an https URL"),
        ({"challenge": "dns-01"}, {}, "challenge"),
        ({"challenge": "http-01"}, {}, "challenge: http-01 is served by listen.http_redirect"),
        ({"staging": True, "directory": "https://ca.internal/dir"}, {}, "staging: is for Let's"),
        ({"storage": "mysql://x"}, {}, "storage"),
        ({"must_staple": True}, {}, "must_staple: unknown key"),
        (None, {}, "listen.tls.cert: is required, or acme in its place"),
        (
            None,
            {"tls": None, "http_redirect": REDIRECT},
            "redirects to https, which needs listen.t",
        ),
        (
            {},
            {"tls": {"acme": {"domains": [NAME]}, "cert": "x.crt"}},
            "listen.tls.key: is required",
        ),
        (
            {},
            {"port": 8443, "host": "127.0.0.1", "http_redirect": REDIRECT | {"port": 8443}},
            "listen.http_redirect.port: is the port of `listen` too",
        ),
    ],
)
def test_mistake_is_reported_with_its_place(
    tmp_path: Path, acme: Any, listen: dict[str, Any], expected: str
) -> None:
    found = problems_of(make_text(tmp_path, acme, **listen))
    assert len(found) == (2 if acme is None and not listen else 1), found
    assert expected in found[0]


def test_staging_is_one_key(tmp_path: Path) -> None:
    config = parse_config(make_text(tmp_path, {"staging": True}), file="g.yaml")
    assert config.listen.tls is not None
    assert config.listen.tls.acme is not None
    assert config.listen.tls.acme.directory_url == LETS_ENCRYPT_STAGING


def check(path: Path, text: str, *options: str) -> int:
    path.write_text(text)
    return main(["check", str(path), *options])


def test_check_names_the_missing_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "josepy" else found(name, package)

    monkeypatch.setattr("gateway.acme.find_spec", find)
    assert check(tmp_path / "g.yaml", make_text(tmp_path, {})) == 1
    shown = capsys.readouterr().err
    assert "listen.tls.acme: needs packages that are not installed" in shown
    assert "pip install 'acme>=" in shown


def test_check_warns_of_names_that_no_public_ca_issues_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = [NAME, "gateway.internal", "gateway"]
    assert check(tmp_path / "g.yaml", make_text(tmp_path, {"domains": domains})) == 0
    shown = capsys.readouterr().err.replace("warning: ", "")
    assert "domains[1]: no public CA issues for 'gateway.internal'" in shown
    assert "domains[2]: no public CA issues for 'gateway'" in shown
    assert "domains[0]" not in shown


def test_check_warns_of_replicas_that_can_not_read_one_anothers_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = make_text(tmp_path, {"storage": "redis://127.0.0.1:6379/0"})
    assert check(tmp_path / "g.yaml", text) == 0
    assert "provider.seal_key" not in capsys.readouterr().err
    text = text.replace(f"seal_key: {'s' * 40}", f"seal_key_file: {tmp_path}/seal.key")
    assert check(tmp_path / "g.yaml", text) == 0
    assert "provider.seal_key: warning: is not set" in capsys.readouterr().err


def test_storage_is_relative_to_the_file_and_shown_to_no_reader(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(make_text(tmp_path, {"storage": "sqlite:///acme.db"}))
    loaded = load(tmp_path / "g.yaml")
    assert loaded.config.listen.tls is not None
    assert loaded.config.listen.tls.acme is not None
    assert loaded.config.listen.tls.acme.storage == f"sqlite:///{tmp_path}/acme.db"
    assert dict(describe_config(loaded))["listen.tls.acme.storage"] == "***"


async def test_online_check_reaches_the_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pebble = Pebble(tmp_path / "pebble", dns_port=9)
    acme = {"directory": pebble.url, "directory_ca": str(pebble.ca)}
    text, path = make_text(tmp_path, acme), tmp_path / "g.yaml"
    upstream = yaml.safe_load(text)
    del upstream["upstreams"], upstream["routes"]
    text = yaml.safe_dump(upstream)
    assert await asyncio.to_thread(check, path, text, "--online") == 1
    assert "listen.tls.acme.directory: no response of the CA" in capsys.readouterr().err
    pebble.start()
    try:
        assert await asyncio.to_thread(check, path, text, "--online") == 0
        text = text.replace(pebble.url, pebble.url.replace("/dir", "/root"))
        assert await asyncio.to_thread(check, path, text, "--online") == 1
    finally:
        pebble.stop()
    assert "listen.tls.acme.directory: the CA responds with status 404" in capsys.readouterr().err
