"""What `gateway explain` tells is what the data plane does."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.running_gateway import StartGateway, make_config
from support.servers.raw_upstream import RawUpstream

from gateway.app.explain import ExplainError, explain
from gateway.cli import main
from gateway.config import Config, load_config, parse_config

ROOT = Path(__file__).parents[2]
EXAMPLE = load_config(ROOT / "config" / "routes.yaml", environ={})

PREFLIGHT = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")]


async def explain_request(
    method: str, url: str, *headers: tuple[str, str], source: str = "127.0.0.1"
) -> Any:
    return explain(EXAMPLE, method, url, headers, source=source)


async def test_chosen_route_and_why_the_others_are_not() -> None:
    explanation = await explain_request("GET", "https://api.example/api/orders/7?x=1")
    assert explanation["route"]["name"] == "orders"
    assert explanation["result"] == {"answered_by": "upstream"}
    assert explanation["auth"]["mode"] == "required"
    assert explanation["auth"]["scopes"] == ["orders:read"]
    reasons = {other["name"]: other["why_not"] for other in explanation["others"]}
    assert reasons["orders-preview"] == "header X-Preview = '1' does not hold"
    assert reasons["moved"] == "path is not at or below /old"
    assert [(one["name"], one["share"]) for one in explanation["upstreams"]] == [
        ("orders", 0.95), ("canary", 0.05),
    ]  # fmt: skip
    assert explanation["limits"]["body_bytes"] == 1024 * 1024
    preview = await explain_request("GET", "/api/orders/7", ("X-Preview", "1"))
    assert preview["route"]["name"] == "orders-preview"


async def test_forwarded_head_is_the_rewritten_one_and_hides_secrets() -> None:
    explanation = await explain_request(
        "GET", "https://Api.example:8443/api/orders/7?x=1",
        ("Cookie", "a=b"), ("X-Api-Key", "geheim"), ("X-Client-Id", "evil"), ("X-Other", "yes"),
        ("X-Backend-Auth", "geheim"), ("X-Credentials", "geheim"), ("X-Session", "geheim"),
    )  # fmt: skip
    head = explanation["forwarded_head"]
    assert head[0] == "GET /v1/orders/7?x=1 HTTP/1.1"
    assert "X-Tenant: CLIENT_ID" in head
    assert "X-Client-Id: CLIENT_ID" in head
    assert "X-Forwarded-Proto: https" in head
    assert "X-Other: yes" in head
    for name in ("X-Api-Key", "X-Backend-Auth", "X-Credentials", "X-Session"):
        assert f"{name}: <hidden>" in head
    assert not any("geheim" in line or "evil" in line or "Cookie" in line for line in head)


async def test_settings_of_an_upstream_have_the_names_of_the_configuration() -> None:
    explanation = await explain_request("GET", "/api/orders/7")
    assert set(explanation["upstreams"][0]["timeouts"]) == {
        "connect", "response_head", "per_try", "total", "idle", "keepalive", "tunnel"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "url", "headers", "source", "status", "reason"),
    [
        ("GET", "/none", [], "127.0.0.1", 404, "no_route"),
        ("GET", "/reports/2024-01", [], "127.0.0.1", 404, "no_route"),
        ("GET", "/office", [], "192.0.2.1", 403, "address"),
        ("GET", "http://h/office", [], "10.0.0.1", 308, "https_only"),
        ("GET", "/closed", [], "127.0.0.1", 503, "maintenance"),
        ("GET", "/old/x", [], "127.0.0.1", 308, "redirect"),
        ("GET", "/robots.txt", [], "127.0.0.1", 200, "fixed_response"),
        ("GET", "/a%2fb", [], "127.0.0.1", 400, "target_escape"),
        ("POST", "/api/orders", [("Content-Length", "9999999")], "::1", 413, "body_too_large"),
        ("OPTIONS", "/api/orders", PREFLIGHT, "127.0.0.1", 204, "cors_preflight"),
        ("GET", "/api/orders", [("Host", "a"), ("Host", "b")], "127.0.0.1", 400, "host"),
    ],
)  # fmt: skip
async def test_response_of_the_gateways_own_is_reported(
    method: str, url: str, headers: list[tuple[str, str]], source: str, status: int, reason: str
) -> None:
    explanation = await explain_request(method, url, *headers, source=source)
    assert explanation["result"]["answered_by"] == "gateway"
    assert (explanation["result"]["status"], explanation["result"]["reason"]) == (status, reason)
    json.dumps(explanation)


async def test_filters_are_named_by_their_keys_in_the_configuration() -> None:
    orders = await explain_request("GET", "/api/orders/7")
    office = await explain_request("GET", "http://h/office", source="10.0.0.1")
    closed = await explain_request("GET", "/closed")
    assert orders["gates"] == ["response_headers", "cors", "limits.body"]
    assert office["gates"] == ["ip", "https_only"]
    assert closed["gates"] == ["maintenance"]


async def test_paths_of_the_provider_are_reported_as_such() -> None:
    for path in ("/token", "/.well-known/oauth-authorization-server", "/jwks.json", "//token"):
        assert (await explain_request("GET", path))["result"] == {"answered_by": "provider"}


async def test_each_route_of_the_example_takes_a_request() -> None:
    requested = {
        "/api/orders": {"orders"}, "/reports/2024-01?format=csv": {"reports"}, "/old": {"moved"},
        "/robots.txt": {"robots"}, "/office": {"office"}, "/closed": {"closed"},
    }  # fmt: skip
    found = {(await explain_request("GET", path))["route"]["name"] for path in requested} | {
        "orders-preview"
    }
    assert found == {route.name for route in EXAMPLE.routes}
    explanation = await explain_request("GET", "/reports/2024-01?format=csv")
    assert explanation["forwarded_head"][:2] == [
        "GET /report/2024/01?format=csv HTTP/1.1", "Host: reports.internal",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("G T", "/", []), ("GET", "ftp://x/", []), ("GET", "x", []), ("GET", "/a b", []),
        ("GET", "/\u00e5", []), ("GET", "/", [("A b", "c")]), ("GET", "/", [("A", "b\r\nC: d")]),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_refused(
    method: str, url: str, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(ExplainError):
        await explain_request(method, url, *headers)


async def test_reported_head_is_the_one_that_the_upstream_gets(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    routes = [
        {
            "name": "a", "match": {"path": "/a"}, "upstream": "main", "auth": "none",
            "rewrite": {"strip_prefix": "/a", "host": "upstream"},
            "request_headers": {"set": {"X-Q": "{query} {route}"}},
        }
    ]  # fmt: skip
    gateway = await start(upstream.url, routes=routes)
    headers = [("Host", "h"), ("Accept", "*/*"), ("X-Q", "theirs")]
    client = await gateway.connect()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    await client.send(f"GET /a/b?c HTTP/1.1\r\n{lines}\r\n".encode())
    await client.read_response()
    (received,) = upstream.requests
    config: Config = parse_config(make_config(tmp_path, upstream.url, routes=routes), file="g.yaml")
    explanation = explain(config, "GET", "/a/b?c", headers)["forwarded_head"]
    sent = [received.request_line, *(b"%b: %b" % field for field in received.headers)]
    varying = (b"X-Request-Id", b"traceparent")
    assert [line for line in sent if not line.startswith(varying)] == [
        line.encode() for line in explanation if not line.encode().startswith(varying)
    ]


def test_text_that_a_route_writes_into_a_field_is_hidden_whatever_the_field_is_called(
    tmp_path: Path,
) -> None:
    routes = [
        {
            "name": "a", "match": {"path": "/"}, "upstream": "main", "auth": "none",
            "request_headers": {
                "set": {"X-Upstream-Pw": "hunter2", "X-Q": "{query}"}, "add": {"X-Via": "p {path}"},
            },
        }
    ]  # fmt: skip
    config = parse_config(make_config(tmp_path, "http://127.0.0.1:9", routes=routes), file="g.yaml")
    shown = explain(config, "GET", "/a?c=1", [("Host", "h")])
    assert "hunter2" not in str(shown)
    head = shown["forwarded_head"]
    assert {"X-Upstream-Pw: <hidden>", "X-Via: <hidden>", "X-Q: c=1"} <= set(head)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ("GET /api/orders", 0, "route     orders\n"),
        ("GET https://h/api/orders -H 'X-Preview: 1' --json", 0, '"name": "orders-preview"'),
        ("GET /closed", 1, "503 maintenance"),
        ("GET /old/x", 0, "308 redirect, Location: https://localhost/new/x"),
        ("GET nowhere", 2, "expected a URL"),
        ("GET / -H nonsense", 2, "is no header field"),
    ],
)
def test_command_reports_and_its_status_is_for_scripts(
    arguments: str,
    status: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    ended: str | int | None
    try:
        ended = main(["explain", "-c", "config/routes.yaml", *shlex.split(arguments)])
    except SystemExit as usage:
        ended = usage.code
    printed = capsys.readouterr()
    assert (ended, text in printed.out + printed.err) == (status, True), printed


def test_no_loop_is_left_behind() -> None:
    assert asyncio.run(explain_request("GET", "/robots.txt"))["result"]["status"] == 200


SECRETIVE = """
provider: {issuer: "http://127.0.0.1:8080", registration: {mode: open}}
upstreams: {main: {targets: ["http://127.0.0.1:9001"]}}
routes:
  - name: verified
    match: {path: /, headers: [{name: X-Origin-Verify, exact: hunter2}]}
    upstream: main
    auth: none
  - name: plain
    match: {path: /}
    upstream: main
    auth: none
    request_headers:
      set: {X-Upstream-Pw: "${PW}", X-Site: "hunter2-{route}", X-Route: "{route}"}
"""


async def test_values_that_routes_set_or_match_secrets_with_are_hidden() -> None:
    config = parse_config(SECRETIVE, file="t.yaml", environ={"PW": "hunter2"})
    explanation = explain(config, "GET", "/")
    assert explanation["route"]["name"] == "plain"
    head = explanation["forwarded_head"]
    assert "X-Upstream-Pw: <hidden>" in head
    assert "X-Site: <hidden>" in head
    assert "X-Route: plain" in head
    assert explanation["others"][0]["why_not"].startswith("header X-Origin-Verify = <hidden>")
    assert "hunter2" not in json.dumps(explanation)
    verified = explain(config, "GET", "/", [("X-Origin-Verify", "hunter2")])
    assert verified["route"]["name"] == "verified"
    assert "hunter2" not in json.dumps(verified)


FROM_VARIABLES = """
provider: {registration: {mode: "off"}}
upstreams:
  main: {targets: ["http://${HOST}:9001", {url: "http://plain.example:${PORT}", weight: 2}]}
routes:
  - name: hidden
    match:
      path: /a
      headers: [{name: X-Site, exact: "${SITE}"}]
      query: [{name: q, regex: "${PATTERN}.*"}]
    upstream: main
    auth: none
    rewrite: {host: upstream, add_prefix: "/${INNER}"}
  - {name: other, match: {path: /b}, upstream: main, auth: none}
"""
VARIABLES = {
    "HOST": "inner-7.example", "PORT": "9443", "SITE": "hunter2", "PATTERN": "swordfish",
    "INNER": "vault",
}  # fmt: skip


async def test_whatever_came_from_a_variable_is_hidden_wherever_it_would_be_shown() -> None:
    config = parse_config(FROM_VARIABLES, file="g.yaml", environ=VARIABLES)
    given = [("X-Site", "hunter2")]
    taken = explain(config, "GET", "/a?q=swordfish", given)
    assert taken["route"]["name"] == "hidden"
    assert taken["request"]["query"] == "q=swordfish"  # as the caller wrote it
    shown = json.dumps([taken["upstreams"], taken["route"], explain(config, "GET", "/b")])
    assert [value for value in VARIABLES.values() if value in shown] == []
    assert taken["upstreams"][0]["targets"][0] == "<hidden>"
    assert "Host: <hidden>" in taken["forwarded_head"]
    assert "vault" not in taken["forwarded_head"][0]
    plain = parse_config(FROM_VARIABLES.replace("${HOST}", "h"), file="g.yaml", environ=VARIABLES)
    assert explain(plain, "GET", "/b")["upstreams"][0]["targets"][0] == "http://h:9001"
