"""Slips in values, and what is not there: `gateway check` finds what `gateway run` would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.deadlines import scaled
from support.jose_values import make_certificate
from support.running_gateway import make_config

from gateway.app.build.checks import find_unusable_files
from gateway.config import Config, ConfigError, load, parse_config

BASE = "provider: {registration: {mode: 'off'}}\n"


def parse(text: str, environ: Mapping[str, str] | None = None) -> Config:
    return parse_config(BASE + text, file="g.yaml", environ=environ or {})


def problem(text: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(text, environ)
    return str(raised.value)


@pytest.mark.parametrize("section", ["listen", "admin", "authz"])
@pytest.mark.parametrize(
    "host", ["", " 127.0.0.1", "127.0.0.1 ", "[::1]", "127.0.0.1:80", "a..b", "a" * 64, "a b", "é",
             "a.", "x\\n", "a/b"],
)  # fmt: skip
def test_host_that_can_not_be_listened_on_is_found(section: str, host: str) -> None:
    more = ", dialect: nginx" if section == "authz" else ""
    text = f'{section}: {{host: "{host}"{more}}}'
    assert f"g.yaml:2: {section}.host: " in problem(text)
    filled = f'{section}: {{host: "${{HOST}}"{more}}}'
    assert f"{section}.host: " in problem(filled, {"HOST": host.replace("\\n", "\n")})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "localhost", "my_host-1.example"])
def test_hosts_that_can_be_listened_on(host: str) -> None:
    assert parse(f'listen: {{host: "{host}"}}').listen.host == host


@pytest.mark.parametrize(
    "text",
    ["${A:-${B}}", "${A", "x${A", "${A:-${B}", "${B}${", "$ADMIN_TOKEN", "$(ADMIN_TOKEN)"],
)
def test_variable_that_is_not_filled_in_is_no_secret(text: str) -> None:
    for key in ('admin: {token: "%s"}', 'introspection_servers: [{client_secret: "%s"}]'):
        assert problem(key % text, {"B": "b"})


def test_dollar_brace_can_be_meant() -> None:
    config = parse('admin: {token: "a$${b}c$d$"}')
    assert config.admin.token is not None
    assert config.admin.token.get_secret_value() == "a${b}c$d$"


@pytest.mark.parametrize(
    "secret", ["\ufefftoken", "token ", " token", "token\n", "token\n\n", "tok\nen", "tok\x00en",
               "token\u00a0"],
)  # fmt: skip
def test_secret_that_no_request_could_show_is_found(tmp_path: Path, secret: str) -> None:
    assert "admin.token: must not" in problem('admin: {token: "${T}"}', {"T": secret})
    file = tmp_path / "token"
    file.write_bytes(secret.encode() + b"\n")  # which one newline at its end is not part of
    assert "admin.token: must not" in problem(f'admin: {{token: "${{file:{file}}}"}}')
    file.write_bytes(b"token\r\n")
    parse(f'admin: {{token: "${{file:{file}}}"}}')


@pytest.mark.parametrize(
    "number", ["22:22", "010000", "0100", "1:00", "1_000", "0x1F", "08", "+", "-", "1e3", "1."]
)
def test_text_that_is_a_number_in_yaml_1_1_only_is_none(number: str) -> None:
    assert "listen.port: " in problem(f"listen: {{port: {number}}}")
    assert "listen.max_connections: " in problem(f"listen: {{max_connections: {number}}}")
    assert "listen.port: " in problem("listen: {port: '${PORT}'}", {"PORT": number})


def test_numbers_are_read() -> None:
    config = parse("listen: {port: 8081, max_connections: 20}\naccess_log: {sample: 0.25}")
    assert (config.listen.port, config.listen.max_connections) == (8081, 20)
    assert config.access_log.sample == 0.25
    for text, value in (("1", 1.0), ("0", 0.0), ("1.0", 1.0), (".5", 0.5), ("1e-1", 0.1)):
        assert parse(f"access_log: {{sample: {text}}}").access_log.sample == value


@pytest.mark.parametrize("digits", [10, 30, 400])
def test_number_without_bound_is_found(digits: int) -> None:
    many = "9" * digits
    route = "{name: a, match: {path: /a}, respond: {status: 200}, auth: none, limits: {body: %s}}"
    if digits > 10:
        for size in (f"{many}GB", f"{many}GiB", many):
            assert "routes[0].limits.body: " in problem(f"routes: [{route % size}]")
    for key in ("cache: {ttl: %sd}", "shutdown: {grace: %sd}"):
        assert "expected at most 36500d" in problem(key % many)


@pytest.mark.parametrize("key", ["access_log: {path: %s}", "listen: {tls: {cert: %s, key: k}}"])
def test_name_of_a_file_that_no_file_can_have_is_found(key: str) -> None:
    assert "control character" in problem(key % '"a\\0b"')


def test_issuer_that_is_listed_twice_is_found() -> None:
    one = "{name: %s, issuer: https://i.example, jwks_uri: https://i.example/k, audience: [a]}"
    found = problem(f"jwt_issuers: [{one % 'a'}, {one % 'b'}]")
    assert "jwt_issuers[1].issuer: is that of jwt_issuers[0] too, and so is the audience" in found
    other = (one % "b").replace("[a]", "[b]")
    parse(f"jwt_issuers: [{one % 'a'}, {other}]")


@pytest.mark.parametrize(
    ("path", "hint"),
    [("/api/*", "write '/api'"), ("/*", "write '/'"), ("/api/**", "write '/api'"),
     ("/api/orders/{id}", "no parameters"), ("/a*b", "write '/'"),
     ("/a{b}", "write '/'")],
)  # fmt: skip
def test_path_as_other_gateways_write_it_is_found(path: str, hint: str) -> None:
    found = problem(
        f"routes: [{{name: a, match: {{path: '{path}'}}, respond: {{status: 200}}, auth: none}}]"
    )
    assert "routes[0].match.path: " in found
    assert hint in found


def problems_of(directory: Path, **sections: Any) -> list[str]:
    path = directory / "gateway.yaml"
    path.write_text(make_config(directory, **sections))
    return [str(one) for one in find_unusable_files(load(path))]


def test_what_is_not_there_is_found_all_at_once_with_its_key(tmp_path: Path) -> None:
    cert = make_certificate(tmp_path, "a")
    other = make_certificate(tmp_path, "b")
    nowhere = tmp_path / "nowhere"
    found = problems_of(
        tmp_path,
        store=f"sqlite:///{nowhere}/g.db",
        access_log={"path": f"{nowhere}/a.log"},
        listen={"unix": {"path": f"{nowhere}/g.sock"}},
        provider={"token_format": "jwt", "seal_key_file": f"{nowhere}/key"},
    )
    assert [line.partition(str(nowhere))[0].split(": ")[1] for line in found] == [
        "access_log.path", "store", "provider.seal_key_file", "listen.unix.path",
    ]  # fmt: skip
    assert all("there is no directory" in line for line in found)
    tls = {"cert": str(cert.cert), "key": str(other.key)}
    (found_one,) = problems_of(tmp_path, listen={"tls": tls})
    assert "listen.tls: " in found_one
    assert f"{other.key}: not the key of the certificate in {cert.cert}" in found_one
    (found_one,) = problems_of(tmp_path, listen={"tls": {**tls, "cert": "none.pem"}})
    assert f"listen.tls.cert: {tmp_path}/none.pem can't be read: No such file" in found_one
    good = {"cert": str(cert.cert), "key": str(cert.key)}
    (found_one,) = problems_of(tmp_path, listen={"tls": {**good, "ciphers": "NONE-OF-THESE"}})
    assert "ciphers: OpenSSL knows none of 'NONE-OF-THESE'" in found_one
    (found_one,) = problems_of(tmp_path, upstreams={"main": {"tls": {"ca": str(cert.key)}}})
    assert f"upstreams.main.tls: {cert.key}: expected certificates in PEM" in found_one
    issuer = {"name": "a", "issuer": "https://i.example", "audience": ["a"], "ca": str(cert.key)}
    (found_one,) = problems_of(tmp_path, jwt_issuers=[issuer])
    assert f"jwt_issuers[0].ca: {cert.key}: expected certificates in PEM" in found_one
    (found_one,) = problems_of(tmp_path, jwt_issuers=[{**issuer, "ca": "absent.pem"}])
    assert f"jwt_issuers[0].ca: {tmp_path}/absent.pem can't be read" in found_one
    (found_one,) = problems_of(tmp_path, store="rediss://127.0.0.1:9?ca=absent.pem")
    assert f"store: {tmp_path}/absent.pem can't be read" in found_one
    assert problems_of(tmp_path, listen={"tls": good}) == []


@pytest.mark.parametrize(
    ("package", "key", "sections"),
    [
        ("opentelemetry", "tracing", {"tracing": {"otlp_endpoint": "http://127.0.0.1:4318"}}),
        ("asyncpg", "store", {"store": "postgresql://127.0.0.1/gateway"}),
        (
            "asyncpg", "rate_limit.store",
            {"rate_limit": {"requests": 1, "per": "1s", "store": "postgresql://127.0.0.1/g"}},
        ),
    ],
)  # fmt: skip
def test_package_that_is_not_installed_is_found_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, key: str,
    sections: dict[str, Any],
) -> None:  # fmt: skip
    installed = util.find_spec

    def find(name: str) -> ModuleSpec | None:
        return None if name == package else installed(name)

    monkeypatch.setattr("gateway.app.build.checks.find_spec", find)
    (found,) = problems_of(tmp_path, **sections)
    assert re.search(rf"gateway\.yaml:\d+: {re.escape(key)}: needs (a )?package", found)
    assert "pip install" in found


def test_key_with_a_passphrase_is_refused_without_a_prompt(tmp_path: Path) -> None:
    cert = make_certificate(tmp_path, "a")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", cert.key, "-aes128", "-passout", "pass:secret", "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = {"cert": str(cert.cert), "key": str(locked)}
    for sections in ({"listen": {"tls": tls}}, {"upstreams": {"main": {"tls": tls}}}):
        (found,) = problems_of(tmp_path, **sections)
        assert f"{locked}: the key has a passphrase" in found


@pytest.mark.parametrize("command", ["check", "run"])
def test_commands_say_the_same_of_what_is_not_there(tmp_path: Path, command: str) -> None:
    config = yaml.safe_load(make_config(tmp_path))
    config["listen"]["tls"] = {"cert": "absent.pem", "key": "absent.key"}
    config["access_log"]["path"] = str(tmp_path / "nowhere" / "access.log")
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "gateway", command, "-c", "gateway.yaml"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True,
        check=False, timeout=scaled(),
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert {line.split(": ")[1] for line in lines} == {
        "listen.tls.cert", "listen.tls.key", "access_log.path",
    }  # fmt: skip
    assert all(line.startswith("gateway.yaml:") for line in lines)


@pytest.mark.parametrize(
    "host", ["orders..svc", ".svc", "a b", "-x", "x-", "b\u00fccher.example", "a" * 64,
             "a." * 127 + "b", "a..", "a*b", "a$b"],
)  # fmt: skip
@pytest.mark.parametrize("port", ["", ":80"])
def test_name_of_a_target_that_can_not_be_looked_up_is_found(host: str, port: str) -> None:
    found = problem(f'upstreams: {{main: {{targets: ["https://{host}{port}"]}}}}')
    assert "g.yaml:2: upstreams.main.targets[0]: " in found
    if host.startswith("b"):
        assert "write 'xn--bcher-kva.example'" in found
    tls = f'upstreams: {{main: {{targets: ["https://a"], tls: {{server_name: "{host}"}}}}}}'
    assert "upstreams.main.tls.server_name: " in problem(tls)


def test_names_of_targets_that_can_be_looked_up() -> None:
    for host in ("a", "_x._tcp.a", "a.svc.test.", "127.0.0.1", "[::1]", "x" * 63, "1a.b-c"):
        parse(f'upstreams: {{main: {{targets: ["http://{host}:80"]}}}}')


@pytest.mark.parametrize("slip", ["\n", " ", "\t", "\ufeff", "\r\n"])
def test_url_or_identifier_with_a_blank_is_found(slip: str) -> None:
    """Each would never match, or be taken for another value, in silence."""
    for key in (
        'store: "redis://:secret%s@127.0.0.1:6379/0"',
        'store: "redis://127.0.0.1:6379/0%s"',
        'upstreams: {main: {targets: ["http://127.0.0.1:9%s"]}}',
        'jwt_issuers: [{name: a, issuer: "https://i.example%s", jwks_uri: "https://i.example/k", '
        "audience: [a]}]",
        'jwt_issuers: [{name: a, issuer: "https://i.example", jwks_uri: "https://i.example/k%s", '
        "audience: [a]}]",
        'jwt_issuers: [{name: a, issuer: "https://i.example", jwks_uri: "https://i.example/k", '
        'audience: ["a%s"]}]',
        'introspection_servers: [{name: a, endpoint: "https://i.example", client_id: "a%s", '
        "client_secret: s}]",
        'tracing: {otlp_endpoint: "http://127.0.0.1:4318%s"}',
        'routes: [{name: a, match: {path: /a}, respond: {status: 200}, clients: ["shop%s"]}]',
    ):
        place, _, rest = key.partition("%s")
        text = place[: place.rindex('"')] + '"' + place[place.rindex('"') + 1 :] + "${SLIP}" + rest
        assert "must not" in problem(text, {"SLIP": slip}), key


@pytest.mark.parametrize(
    ("route", "hint"),
    [
        ("path: /api, match: {path: /x}", "routes[0].path: unknown key here, it belongs below"),
        ("match: {path: /x, upstream: main}", "match.upstream: unknown key here, it belongs one"),
        ("host: a.example, match: {path: /x}", "'match.hosts' or 'rewrite.host'"),
        ("status: 302, match: {path: /x}", "it belongs below 'redirect' or 'respond'"),
        ("strip_prefix: /x, match: {path: /x}", "it belongs below 'rewrite'"),
        ("match: {path: /x}, uptream: main", "did you mean 'upstream'?"),
        ("path: /api/*", "write '/api', or `regex`"),
        ("colour: blue, match: {path: '/api/{id}'}", "write '/api', or `regex`"),
    ],
)  # fmt: skip
def test_key_at_another_level_is_found_with_its_place(route: str, hint: str) -> None:
    assert hint in problem(f"routes: [{{name: a, {route}}}]")


def test_key_of_a_section_below_the_top_is_found_there() -> None:
    assert "it belongs below 'provider'" in problem("scopes: [read]")
    assert "it belongs one level up, beside 'listen'" in problem("listen: {workers: 2}")


@pytest.mark.parametrize("port", ["", "null", "false", "0.5", "OFF", "none"])
def test_only_off_leaves_the_port_out(port: str) -> None:
    assert "listen.port: " in problem(f"listen: {{port: {port}}}")
    assert parse("listen: {port: off, unix: {path: /tmp/x}}").listen.port is None
    assert parse('listen: {port: "${P}"}', {"P": "off"}).listen.port is None


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("jwks_uri: ftp://x", "jwks_uri: expected an http or https URL"),
        ("preset: ping", "preset: expected 'keycloak', 'entra'"),
        ("preset: auth0", "issuer: expected a slash at its end, as Auth0 writes it"),
        ("client_claim: a..b", "client_claim: expected names of claims with dots between them"),
        ("client_claim: ''", "client_claim: expected names of claims"),
        ("subject_claim: 'a.\"b'", "subject_claim: expected names of claims"),
        ("scope_claims: [a b]", "scope_claims[0]: expected names of claims"),
        ("scope_claims: [a.b.c.d.e.f.g.h.i]", "scope_claims[0]: leads into more than 8 objects"),
        (f"scope_claims: [{'a' * 257}]", "scope_claims[0]: is longer than 256 characters"),
        ("typ: []", "typ: expected at least 1 item"),
        ("jwks_uri: http://x.example, token_file: t", "token_file: the token would be sent"),
    ],
)  # fmt: skip
def test_issuer_that_cannot_be_used_is_found(keys: str, expected: str) -> None:
    found = problem(f"jwt_issuers: [{{name: a, issuer: https://i.example, audience: [a], {keys}}}]")
    assert f"jwt_issuers[0].{expected}" in found


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("claims: {tenant: []}", "claims.tenant: expected at least 1 item"),
        ("claims: {tenant: {}}", "claims.tenant: expected values, or any or all with values in it"),
        ("claims: {tenant: {some: [a]}}", "claims.tenant.some: unknown key, expected one of all"),
        ("claims: {tenant: [1.5]}", "claims.tenant[0]: expected text, a whole number, true or"),
        ("claims: {tenant: [[a]]}", "claims.tenant[0]: expected text, a whole number, true or"),
        ("claims: {tenant: null}", "claims.tenant: expected text, a whole number, true or"),
        ("claims: {tenant: {any: [{}]}}", "claims.tenant.any[0]: expected text, a whole number"),
        ("claims: {a..b: [x]}", "claims.a..b: expected names of claims with dots between them"),
        ("claims: {tenant: [a]}, auth: none", "claims: has no effect with auth none"),
        ("scopes: {any: [x]}", "scopes.any[0]: scope 'x' is not one of provider.scopes"),
        ("scopes: {all: [x]}", "scopes.all[0]: scope 'x' is not one of provider.scopes"),
        ("scopes: [x]", "scopes[0]: scope 'x' is not one of provider.scopes"),
        ("scopes: {}", "scopes: expected a list, or any or all with scopes in it"),
        ("scopes: x", "scopes: expected a list"),
        ("request_headers: {add: {X-T: '{claim:t}'}}", "request_headers.add.X-T: the client could"),
        ("request_headers: {set: {X-T: '{claim:t}'}}, auth: none", "request_headers.set.X-T:"),
        ("request_headers: {set: {X-T: '{claim}'}}", "request_headers.set.X-T: {claim:}: expected"),
        ("request_headers: {set: {X-T: '{claim:a..b}'}}", "request_headers.set.X-T: {claim:a..b}:"),
        ("response_headers: {set: {X-T: '{claim:t}'}}", "response_headers.set.X-T: there is"),
    ],
)  # fmt: skip
def test_rule_on_claims_that_cannot_hold_is_found(keys: str, expected: str) -> None:
    found = problem(f"routes: [{{name: a, match: {{path: /a}}, respond: {{status: 200}}, {keys}}}]")
    assert f"routes[0].{expected}" in found


def test_route_is_not_chosen_by_a_field_that_another_fills_with_a_claim() -> None:
    found = problem(
        "routes:\n"
        "- {name: a, match: {path: /a}, respond: {status: 200}, "
        "request_headers: {set: {X-T: '{claim:t}'}}}\n"
        "- {name: b, match: {path: /b, headers: [{name: x-t}]}, respond: {status: 200}}"
    )
    assert "routes[1].match.headers[0].name: is no field to choose a route by: routes[0]" in found
