"""Broken configurations: each is told with file, line and key, and all at once."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from support.sound_config import SOUND

from gateway.config import ConfigError, load_config, parse_config


def problems_of(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse_config(text, file="g.yaml", environ=environ or {})
    return [str(problem) for problem in refused.value.problems]


def test_sound_configuration_is_accepted() -> None:
    config = parse_config(SOUND, file="g.yaml", environ={})
    assert config.routes[0].auth == "required"
    assert config.provider.registration.mode == "off"
    assert config.provider.token_ttl == 3600


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("port: 8080", "port: 80800", "1: listen.port: must be at most 65535"),
        ("port: 8080", "port: '8080'", "1: listen.port: expected a whole number"),
        ("port: 8080", "prot: 8080", "1: listen.prot: unknown key, did you mean 'port'?"),
        ("upstream: app", "upstrem: app", "12: routes[0].upstrem: unknown key, did you mean 'upstream'?"),
        ("listen:", "listne:", "1: listne: unknown key, did you mean 'listen'?"),
        ("listen:", "zzz: {}\nlisten:", "1: zzz: unknown key, expected one of access_log, admin"),
        ("    upstream: app\n", "", "10: routes[0].upstream: is required"),
        ("upstream: app", "upstream: ap", "12: routes[0].upstream: there is no upstream 'ap', did you mean 'app'?"),
        ("scopes: [read]\n", "scopes: [raed]\n", "13: routes[0].scopes[0]: scope 'raed' is not one of provider.scopes, did you mean 'read'?"),
        ("scopes: [read, write]", "scopes: [read, write]\n  default_scopes: [other]", "5: provider.default_scopes[0]: scope 'other' is not one of provider.scopes"),
        ("scopes: [read, write]", "scopes: [read, 'wr ite']", "4: provider.scopes[1]: expected visible ASCII"),
        ("mode: off", "mode: maybe", "5: provider.registration.mode: expected 'token', 'public', 'open' or 'off'"),
        ("mode: off", "mode: token", "5: provider.registration.token: is required with mode token"),
        ("issuer: https://gateway.example", "issuer: gateway.example", "3: provider.issuer: expected an http or https URL"),
        ("issuer: https://gateway.example", "token_ttl: 3600", "3: provider.token_ttl: 3600 has no unit, expected a duration such as 500ms"),
        ("issuer: https://gateway.example", "token_ttl: 1 hour", "3: provider.token_ttl: expected a duration such as 500ms"),
        ("issuer: https://gateway.example", "token_ttl: 0", "3: provider.token_ttl: must be longer than 0"),
        ("issuer: https://gateway.example", "token_path: /validate", "2: provider.validate_path: is the same as token_path"),
        ("issuer: https://gateway.example", "token_path: token", "3: provider.token_path: must start with /"),
        ("issuer: https://gateway.example", "grant_types: [password]", "3: provider.grant_types[0]: expected 'client_credentials'"),
        ("issuer: https://gateway.example", "credentials_in: [cookie]", "3: provider.credentials_in[0]: expected 'basic', 'form', 'header' or 'query'"),
        ("issuer: https://gateway.example", "credentials_in: []", "3: provider.credentials_in: expected at least 1 item"),
        ("targets: [http://127.0.0.1:3000]", "targets: []", "8: upstreams.app.targets: expected at least 1 item"),
        ("targets: [http://127.0.0.1:3000]", "targets: ['127.0.0.1:3000']", "8: upstreams.app.targets[0]: expected http://host:port"),
        ("targets: [http://127.0.0.1:3000]", "targets: ['http://h:3000/x']", "8: upstreams.app.targets[0]: expected http://host:port"),
        ("targets: [http://127.0.0.1:3000]", "targets: ['http://u:p@h']", "8: upstreams.app.targets[0]: expected http://host:port"),
        ("targets: [http://127.0.0.1:3000]", "targets: ['http://h:99999']", "8: upstreams.app.targets[0]: expected http://host:port"),
        ("targets: [http://127.0.0.1:3000]", "targets: http://h:1", "8: upstreams.app.targets: expected a list"),
        ("  app:\n", "  a/b:\n", "7: upstreams.a/b: expected letters, digits"),
        ("name: app", "name: _none", "10: routes[0].name: expected letters, digits"),
        ("match: {path: /app}", "match: {path: app}", "11: routes[0].match.path: must start with /"),
        ("match: {path: /app}", "match: {path: /app/}", "11: routes[0].match.path: a prefix matches at segment boundaries by itself, write '/app'"),
        ("match: {path: /app}", "match: {path: /a//b}", "11: routes[0].match.path: must be canonical"),
        ("match: {path: /app}", "match: {path: /a/../b}", "11: routes[0].match.path: must be canonical"),
        ("match: {path: /app}", "match: {path: /a%20b}", "11: routes[0].match.path: must be written without percent-escapes"),
        ("match: {path: /app}", "match: {path: '/a?b'}", "11: routes[0].match.path: must be canonical"),
        ("match: {path: /app}", "match: {path: /app, methods: [get]}", "11: routes[0].match.methods[0]: expected an upper-case method"),
        ("match: {path: /app}", "match: {path: /app, hosts: ['a:80']}", "11: routes[0].match.hosts[0]: expected a lower-case host name"),
        ("match: {path: /app}", "match: {path: /token, exact: true}", "11: routes[0].match.path: is a path of the provider"),
        ("match: {path: /app}", "match: {path: /app}\n    rewrite: {strip_prefix: /ap}", "12: routes[0].rewrite.strip_prefix: must be '/app' or whole segments at its front"),
        ("upstream: app", "upstream: app\n    auth: none", "14: routes[0].scopes: has no effect with auth none"),
        ("upstream: app", "upstream: app\n    auth: always", "13: routes[0].auth: expected 'required', 'none' or 'optional'"),
        ("listen:", "trusted_proxies: [10.0.0.1/8]\nlisten:", "1: trusted_proxies[0]: has host bits set, did you mean 10.0.0.0/8?"),
        ("listen:", "trusted_proxies: [everybody]\nlisten:", "1: trusted_proxies[0]: expected a network"),
        ("listen:", "trusted_proxies: [unix, Unix]\nlisten:", "1: trusted_proxies[1]: expected a network"),
        ("port: 8080", "port: 8080, unix: {path: gateway.sock}", "1: listen.unix.path: must start with /"),
        ("port: 8080", "port: 8080, unix: {path: /g.sock, mode: 0660}", "1: listen.unix.mode: expected an octal mode in quotes"),
        ("port: 8080", "port: 8080, unix: {path: /g.sock, mode: '0880'}", "1: listen.unix.mode: expected an octal mode in quotes"),
        ("listen:", "store: redis://user:geheim@h:0/0\nlisten:", "1: store: expected HOST or HOST:PORT after ://"),
        ("listen:", "store: mysql://x\nlisten:", "1: store: expected sqlite:///PATH, redis://HOST:PORT/DB"),
        ("listen:", "workers: 0\nlisten:", "1: workers: must be at least 1"),
        ("listen:", "workers: 1000\nlisten:", "1: workers: must be at most 256"),
        ("listen:", "admin: {port: 8080}\nlisten:", "1: admin.port: is the port of `listen` too"),
        ("listen:", "cache: {max_entries: 0}\nlisten:", "1: cache.max_entries: must be at least 1"),
        ("listen:", "admin: {token: ''}\nlisten:", "1: admin.token: must not be empty"),
        ("listen:", "admin:\nlisten:", "1: admin: expected a mapping"),
        ("port: 8080", "port: 8080, port: 8081", "1: listen.port: this key is given twice"),
        ("port: 8080", "port: ${PORT}", "1: not valid YAML: expected ',' or '}', but got '{' (within { } and [ ], quote"),
        ("port: 8080", "port: '${PORT}'", "1: listen.port: the environment variable PORT is not set"),
        ("port: 8080", "port: '${file:missing}'", "1: listen.port: missing can't be read: No such file or directory"),
        ("port: 8080", "port: '${a-b}'", "1: listen.port: expected ${NAME}"),
    ],
)  # fmt: skip
def test_problem_is_reported_with_its_place(old: str, new: str, problem: str) -> None:
    assert old in SOUND
    reported = problems_of(SOUND.replace(old, new, 1))
    assert any(one.startswith(f"g.yaml:{problem}") for one in reported), reported
    assert len(reported) <= 2, "one mistake is not told in many ways"


@pytest.mark.parametrize(
    ("provider", "problem"),
    [
        ("users: {source: oidc}", "provider.users.oidc: is required with source oidc"),
        (
            "users: {oidc: {issuer: 'https://a.example', client_id: a, client_secret: b}}",
            "provider.users.oidc: has no effect without source oidc",
        ),
        ("users: {source: ldap}", "provider.users.source: expected"),
        (
            "users: {source: oidc, oidc: {issuer: 'https://a.example', client_id: a}}",
            "provider.users.oidc.client_secret: is required",
        ),
        ("code_ttl: 11m", "provider.code_ttl: expected at most 10m"),
        ("authorize_path: /token", "provider.authorize_path: is the same as token_path"),
        ("grant_types: [password]", "provider.grant_types[0]: expected"),
    ],
)
def test_what_is_wrong_about_users_is_reported(provider: str, problem: str) -> None:
    text = f"provider: {{registration: {{mode: 'off'}}, {provider}}}\nupstreams: {{}}\nroutes: []\n"
    assert any(problem in one for one in problems_of(text)), problems_of(text)


def test_a_route_may_be_called_like_the_authorization_endpoint_where_there_is_none() -> None:
    text = textwrap.dedent(
        """\
        provider: {registration: {mode: 'off'}, grant_types: [GRANT]}
        upstreams: {app: {targets: ["http://127.0.0.1:1"]}}
        routes: [{name: a, match: {path: /authorize, exact: true}, upstream: app}]
        """
    )
    parse_config(text.replace("GRANT", "client_credentials"), file="g.yaml", environ={})
    assert (
        "is a path of the provider" in problems_of(text.replace("GRANT", "authorization_code"))[0]
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "g.yaml:1: the file is empty"),
        ("- a\n- b\n", "g.yaml:1: expected a mapping of sections"),
        ("a: [1\nb: 2\n", "g.yaml:2: not valid YAML"),
        ("a: 1\n  b: 2\n", "g.yaml:2: not valid YAML"),
        ("a: &x [*x]\n", "g.yaml:1: "),
        ("? [a]\n: 1\n", "g.yaml:1: a key must be plain text"),
    ],
)
def test_text_that_is_no_configuration_is_reported(text: str, problem: str) -> None:
    assert problems_of(text)[0].startswith(problem)


def test_everything_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = textwrap.dedent(
        """\
        listen: {port: high}
        provider:
          scopes: [read]
          registration: {mode: token, token: "${UNSET}"}
        upstreams:
          app: {targets: [nonsense], balance: fair}
        routes:
          - {name: a, match: {path: /a}, upstream: ap, scopes: [wirte]}
          - {name: a, match: {path: /a}, upstream: app}
          - {name: b, match: {}, upstream: app}
        """
    )
    reported = [problem.partition(": ")[2].split(": ")[0] for problem in problems_of(text)]
    assert reported == [
        "listen.port",
        "provider.registration.token",
        "upstreams.app.balance",
        "upstreams.app.targets[0]",
        "routes[0].scopes[0]",
        "routes[0].upstream",
        "routes[1].match",
        "routes[1].name",
        "routes[2].match.path",
    ]


@pytest.mark.parametrize(
    ("first", "second", "ties"),
    [
        ("{path: /a}", "{path: /a}", True),
        ("{path: /a, methods: [GET]}", "{path: /a, methods: [POST, GET]}", True),
        ("{path: /a, hosts: [x.example]}", "{path: /a, hosts: [y.example, x.example]}", True),
        ("{path: /a, exact: true}", "{path: /a, exact: true}", True),
        ("{path: /a, methods: [GET]}", "{path: /a}", False),
        ("{path: /a, methods: [GET]}", "{path: /a, methods: [POST]}", False),
        ("{path: /a, hosts: [x.example]}", "{path: /a}", False),
        ("{path: /a, exact: true}", "{path: /a}", False),
        ("{path: /a}", "{path: /a/b}", False),
    ],
)
def test_routes_that_tie_are_an_error(first: str, second: str, ties: bool) -> None:
    text = SOUND.partition("routes:")[0] + textwrap.dedent(
        f"""\
        routes:
          - {{name: one, match: {first}, upstream: app}}
          - {{name: two, match: {second}, upstream: app}}
        """
    )
    if ties:
        (reported,) = problems_of(text)
        assert reported.startswith("g.yaml:11: routes[1].match: ties with routes[0] ('one')")
    else:
        parse_config(text, file="g.yaml", environ={})


def test_secret_never_stands_in_a_message() -> None:
    canary = "canary-4711"
    for text in (
        SOUND.replace("mode: off", f"mode: {canary}"),
        SOUND.replace("mode: off", "mode: ${SECRET}"),
        SOUND.replace("port: 8080", "port: ${SECRET}"),
        SOUND.replace("https://gateway.example", "${SECRET}"),
        SOUND.replace("[http://127.0.0.1:3000]", "['http://u:${SECRET}@h']"),
    ):
        assert canary not in "\n".join(problems_of(text, {"SECRET": canary}))


def test_missing_file_and_wrong_encoding_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml:1: can't be read: No such file"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe5\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("provider: {seal_key: short}", "provider.seal_key", "at least 32 random characters"),
        ("provider: {client_certificate_header: X-Cert}", "provider.client_certificate_header", "without trusted_proxies"),
        ("provider: {client_certificate_header: 'a b'}", "provider.client_certificate_header", "name of a header field"),
        ("provider: {revoke_path: /.well-known/x}", "provider.revoke_path", "something else"),
        ("provider: {revoke_path: /token}", "provider.revoke_path", "is the same as token_path"),
        ("provider: {audiences: [not-a-uri]}", "provider.audiences[0]", "absolute URI"),
        ("provider: {audiences: ['https://a.example/#x']}", "provider.audiences[0]", "without a fragment"),
        ("provider: {registration: {mode: off, jwks_uris: ['https://a.example']}}", "provider.registration.jwks_uris[0]", "ends with a slash"),
        ("jwt_issuers: [{name: a, issuer: https://a.example, jwks_uri: 'https://u:p@a.example', audience: [x]}]", "jwt_issuers[0].jwks_uri", "without a user"),
        ("jwt_issuers: [{name: a, issuer: https://a.example, jwks_uri: https://a.example, audience: []}]", "jwt_issuers[0].audience", "at least 1"),
        ("jwt_issuers: [{name: a, issuer: https://a.example, jwks_uri: https://a.example, audience: [x], algorithms: [HS256]}]", "jwt_issuers[0].algorithms[0]", "expected 'ES256'"),
        ("provider: {issuer: https://a.example, registration: {mode: off}}\njwt_issuers: [{name: a, issuer: https://a.example, jwks_uri: https://a.example, audience: [x]}]", "jwt_issuers[0].issuer", "our own issuer"),
        ("introspection_servers: [{name: a, endpoint: https://a.example, client_id: c, client_secret: s}, {name: a, endpoint: https://a.example, client_id: c, client_secret: s}]", "introspection_servers[1].name", "is the name of introspection_servers[0] too"),
        ("introspection_servers: [{name: https, endpoint: https://a.example, client_id: c, client_secret: s}]", "introspection_servers[0].name", "its client ids would begin as URLs do (https:), expected another name"),
    ],
)  # fmt: skip
def test_provider_that_cannot_work_as_configured_is_refused(
    section: str, key: str, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(section, file="g.yaml", environ={})
    found = [problem.message for problem in refused.value.problems if problem.key == key]
    assert any(message in text for text in found), refused.value
