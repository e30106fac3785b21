"""What routes can't be told to do, and where that is said."""

from __future__ import annotations

import pytest
from support.sound_config import SOUND

from gateway.config import ConfigError, parse_config

HEAD = SOUND.partition("routes:")[0]


def problems_of(keys: str, top: str = "") -> list[str]:
    text = f"{HEAD}{top}routes:\n  - {{name: a, match: {{path: /a}}, {keys}}}\n"
    try:
        parse_config(text, file="g.yaml", environ={})
    except ConfigError as refused:
        return [f"{problem.key}: {problem.message}" for problem in refused.problems]
    return []


@pytest.mark.parametrize(
    ("keys", "key", "message"),
    [
        ("auth: none", "upstream", "is required, or one of split"),
        ("upstream: app, respond: {body: x}", "respond", "can't be given together with upstream"),
        ("redirect: {to: /x}, respond: {body: x}", "respond", "together with redirect"),
        ("respond: {status: 204, body: x}", "respond.body", "has no body"),
        ("respond: {status: 101}", "respond.status", "at least 200"),
        ("respond: {headers: {Content-Length: '1'}}", "respond.headers.Content-Length", "gateway's own"),
        ("redirect: {to: 'javascript:x'}", "redirect.to", "expected a URL or a path"),
        ("redirect: {to: '//evil.example'}", "redirect.to", "expected a URL or a path"),
        ("redirect: {to: '/{path}'}", "redirect.to", "expected a URL or a path"),
        ("redirect: {to: 'https://a.example{query}'}", "redirect.to", "expected a URL or a path"),
        ("redirect: {to: 'https://{query}.example/'}", "redirect.to", "expected a URL or a path"),
        ("redirect: {to: 'https://a/{header:X}'}", "redirect.to", "there is no variable {header}"),
        ("redirect: {to: /x, status: 304}", "redirect.status", "expected 301"),
        ("upstream: app, request_headers: {set: {X-Client-Id: x}}", "request_headers.set.X-Client-Id", "gateway's own"),
        ("upstream: app, request_headers: {add: {Host: x}}", "request_headers.add.Host", "gateway's own"),
        ("upstream: app, request_headers: {remove: [Transfer-Encoding]}", "request_headers.remove[0]", "one connection"),
        ("upstream: app, request_headers: {set: {X-A: '{nobody}'}}", "request_headers.set.X-A", "there is no variable {nobody} here"),
        ("upstream: app, request_headers: {set: {X-A: '{header:Authorization}'}}", "request_headers.set.X-A", "credentials"),
        ("upstream: app, request_headers: {set: {X-A: '{header}'}}", "request_headers.set.X-A", "expected the name of a header"),
        ("upstream: app, request_headers: {set: {X-A: 'a}'}}", "request_headers.set.X-A", "lone brace"),
        ('upstream: app, request_headers: {set: {X-A: "a\\r\\nX-B: c"}}', "request_headers.set.X-A", "no line end"),
        ("upstream: app, request_headers: {set: {'X A': b}}", "request_headers.set.X A", "expected the name of a header"),
        ("upstream: app, forward_token: true, request_headers: {set: {Authorization: b}}", "request_headers.set.Authorization", "leave forward_token out"),
        ("upstream: app, response_headers: {set: {X-A: '{client_name}'}}", "response_headers.set.X-A", "there is no variable"),
        ("upstream: app, response_headers: {remove: [Content-Encoding]}", "response_headers.remove[0]", "one connection"),
        ("upstream: app, limits: {body: 1 MB}", "limits.body", "expected a size"),
        ("upstream: app, limits: {body: -1}", "limits.body", "expected a size"),
        ("upstream: app, ip: {allow: [10.0.0.1/8]}", "ip.allow[0]", "has host bits set"),
        ("upstream: app, cors: {}", "cors.origins", "is required"),
        ("upstream: app, cors: {origins: ['*'], credentials: true}", "cors.credentials", "name origins"),
        ("upstream: app, cors: {origins: ['null']}", "cors.origins[0]", "expected `*` or an origin"),
        ("upstream: app, cors: {origins: ['https://a.example/']}", "cors.origins[0]", "without a path"),
        ("upstream: app, cors: {origins: ['https://*']}", "cors.origins[0]", "expected `*` or an origin"),
        ("upstream: app, cors: {origin_regexes: ['(']}", "cors.origin_regexes[0]", "RE2"),
        ("split: [{upstream: ap, weight: 1}]", "split[0].upstream", "there is no upstream 'ap', did you mean 'app'?"),
        ("split: [{upstream: app, weight: 1}, {upstream: app, weight: 1}]", "split[1].upstream", "has a share already"),
        ("split: [{upstream: app, weight: 0}]", "split", "expected one weight above 0"),
        ("upstream: app, split: [{upstream: app, weight: 1}]", "split", "together with upstream"),
        ("upstream: app, mirror: {upstream: ap}", "mirror.upstream", "did you mean 'app'?"),
        ("upstream: app, mirror: {upstream: app, percent: 101}", "mirror.percent", "at most 100"),
        ("respond: {}, mirror: {upstream: app}", "mirror", "has no effect"),
        ("upstream: app, compress: {types: [JSON]}", "compress.types[0]", "media type"),
        ("upstream: app, compress: {encodings: [zstd]}", "compress.encodings[0]", "expected 'gzip'"),
        ("upstream: app, compress: {encodings: []}", "compress.encodings", "at least 1"),
        ("upstream: app, split_by: client", "split_by", "has no effect"),
        ("split: [{upstream: app, weight: 1}], split_by: 'header:'", "split_by", "header:NAME"),
        ("upstream: app, rewrite: {add_prefix: /v1/}", "rewrite.add_prefix", "whole segments"),
        ("upstream: app, rewrite: {add_prefix: /a/../b}", "rewrite.add_prefix", "whole segments"),
        ("upstream: app, rewrite: {location: true}", "rewrite.location", "needs strip_prefix or"),
        ("upstream: app, rewrite: {add_prefix: /v1, location: true, regex: {pattern: a, substitution: b}}",
         "rewrite.location", "no regex"),
        ("upstream: app, rewrite: {host: 'a b'}", "rewrite.host", "expected preserve"),
        ("upstream: app, rewrite: {regex: {pattern: '(', substitution: x}}", "rewrite.regex.pattern", "RE2"),
        ("upstream: app, rewrite: {regex: {pattern: 'a', substitution: '\\1'}}", "rewrite.regex.substitution", "groups"),
    ],
)  # fmt: skip
def test_route_that_can_not_work_is_refused(keys: str, key: str, message: str) -> None:
    reported = problems_of(keys)
    assert any(one.startswith(f"routes[0].{key}: ") and message in one for one in reported), (
        reported
    )


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("regex: '(?=a)'", "routes[0].match.regex: expected a pattern that RE2 takes"),
        (r"regex: '(a)\1'", "routes[0].match.regex: expected a pattern that RE2 takes"),
        ("headers: [{name: X, exact: a, regex: b}]", "routes[0].match.headers[0]: expected one of"),
        ("query: [{name: x, exact: a, present: false}]", "routes[0].match.query[0]: expected one of"),
        ("headers: [{name: X-Client-Id}]", "routes[0].match.headers[0].name: is no field"),
        ("headers: [{name: X_Y}]", "routes[0].match.headers[0].name: expected the name"),
    ],
)  # fmt: skip
def test_condition_that_can_not_be_asked_is_refused(match: str, message: str) -> None:
    text = f"{HEAD}routes:\n  - {{name: a, match: {{path: /a, {match}}}, upstream: app}}\n"
    with pytest.raises(ConfigError) as refused:
        parse_config(text, file="g.yaml", environ={})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("first", "second", "ties"),
    [
        ("regex: /a.*", "regex: /a.*", True),
        ("regex: /a.*", "regex: /b.*", False),
        ("headers: [{name: X-A}]", "headers: [{name: x-a}]", True),
        ("headers: [{name: X-A}, {name: X-B}]", "headers: [{name: X-B}, {name: X-A}]", True),
        ("headers: [{name: X-A}]", "headers: [{name: X-A, exact: b}]", False),
        ("query: [{name: x}]", "query: [{name: X}]", False),
        ("query: [{name: x}]", "methods: []", False),
    ],
)
def test_routes_whose_conditions_are_the_same_tie(first: str, second: str, ties: bool) -> None:
    routes = "".join(
        f"  - {{name: r{at}, match: {{path: /a, {match}}}, upstream: app}}\n"
        for at, match in enumerate((first, second))
    )
    text = f"{HEAD}routes:\n{routes}"
    if not ties:
        parse_config(text, file="g.yaml", environ={})
        return
    with pytest.raises(ConfigError, match="ties with routes"):
        parse_config(text, file="g.yaml", environ={})


def test_value_that_a_header_is_set_to_is_not_shown() -> None:
    config = parse_config(
        f"{HEAD}routes:\n  - {{name: a, match: {{path: /a}}, upstream: app, "
        "request_headers: {set: {Authorization: '${KEY}'}}}\n",
        file="g.yaml",
        environ={"KEY": "geheim"},
    )
    assert "geheim" not in repr(config)
