"""One canonical path: what is matched is what is forwarded, and ambiguity is refused."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.errors import BadRequestError
from gateway.http.target import is_canonical_path, parse_target


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/", "/", ""),
        ("/api/orders", "/api/orders", ""),
        ("/api/orders/", "/api/orders/", ""),
        ("/api?x=/../y&z=%2F", "/api", "?x=/../y&z=%2F"),
        ("/?", "/", "?"),
        ("/a//b", "/a/b", ""),
        ("//a", "/a", ""),
        ("/a/./b/.", "/a/b/", ""),
        ("/public/../protected/x", "/protected/x", ""),
        ("/public/%2e%2e/protected/x", "/protected/x", ""),
        ("/public/%2E./protected/x", "/protected/x", ""),
        ("/../../x", "/x", ""),
        ("/..", "/", ""),
        ("/a/..", "/", ""),
        ("/%61%2d%7E", "/a-~", ""),
        ("/caf%c3%a9", "/caf%C3%A9", ""),
        ("/%252e%252e/x", "/%252e%252e/x", ""),
        ("/.well-known/x", "/.well-known/x", ""),
        ("/a;v=1/b", "/a;v=1/b", ""),
    ],
)
def test_target_has_one_canonical_path(raw: str, path: str, query: str) -> None:
    target = parse_target(raw)
    assert (target.path, target.query) == (path, query)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("/a%00", "target_escape"),
        ("/a%0d%0a", "target_escape"),
        ("/a%7f", "target_escape"),
        ("/a%zz", "target_escape"),
        ("/a%4", "target_escape"),
        ("/a%", "target_escape"),
        ("/a\\b", "target_backslash"),
        ("/a#b", "target_fragment"),
        ("/a?b#c", "target_fragment"),
        ("/public/..;/protected", "target_dot_parameter"),
        ("/public/.;x/protected", "target_dot_parameter"),
        ("/public/;x/protected", "target_dot_parameter"),
        ("/public/%2e%2e;/protected", "target_dot_parameter"),
        ("/caf\xe9", "target_characters"),
        ("/a\x00", "target_characters"),
        ("/a b", "target_characters"),
        ("*", "target_form"),
        ("", "target_form"),
        ("api", "target_form"),
        ("example.com:443", "target_form"),
        ("ftp://example.com/", "target_form"),
        ("http:///a", "target_authority"),
        ("http://user@example.com/a", "target_authority"),
    ],
)
def test_ambiguous_target_is_refused(raw: str, reason: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_target(raw)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("raw", "authority", "path"),
    [
        ("http://example.com/a?b", "example.com", "/a"),
        ("HTTPS://example.com:8443", "example.com:8443", "/"),
        ("http://example.com?x", "example.com", "/"),
        ("http://example.com/../a", "example.com", "/a"),
    ],
)
def test_absolute_form_yields_authority_and_path(raw: str, authority: str, path: str) -> None:
    target = parse_target(raw)
    assert (target.authority, target.path) == (authority, path)


@pytest.mark.parametrize(
    ("path", "readings"),
    [
        ("/a;x=1/b;y/c", {"/a;x=1/b;y/c", "/a/b/c"}),
        ("/a/b", set()),
        ("/a%20b/%C3%A9", {"/a%20b/%C3%A9"}),
        ("/a%3Bx/b", {"/a%3Bx/b", "/a;x/b", "/a/b"}),
        ("/a%3Fb", {"/a%3Fb", "/a"}),
        ("/a%23b", {"/a%23b", "/a"}),
        ("/%2561", {"/%2561", "/%61", "/a"}),
    ],
)
def test_other_readings_are_those_of_laxer_servers(path: str, readings: set[str]) -> None:
    assert set(parse_target(path).other_readings) == readings


@pytest.mark.parametrize(
    "path", ["/a/%252e%252e/b", "/a/..%255cb", "/a/..%3b/b", "/..%23", "/..%3f"]
)
def test_path_that_climbs_for_a_laxer_server_is_rejected(path: str) -> None:
    with pytest.raises(BadRequestError):
        _ = parse_target(path).other_readings


pieces = st.sampled_from(
    ["/", "//", ".", "..", "%2e", "%2E%2e", "a", "public", "protected", ";", ";x", "%41", "%c3%a9",
     "%2f", "%5c", "\\", "%", "%25", "?", "?a=..", "~", "-", "é", "%3b", "*", ":", "@"]
)  # fmt: skip


@given(st.lists(pieces, max_size=12).map(lambda parts: "/" + "".join(parts)))
def test_canonical_path_is_stable_and_holds_nothing_to_reinterpret(raw: str) -> None:
    try:
        target = parse_target(raw)
    except BadRequestError:
        return
    path = target.path
    assert path.startswith("/")
    assert "//" not in path
    assert not {".", ".."} & set(path.split("/"))
    assert not re.search(r"%(2[Ee]|00)|\\|#", path)
    assert parse_target(path).path == path
    assert target.has_escaped_slash is bool(re.search(r"%(2F|5C)", path))
    assert not re.search(r"%(2f|5c)", path)
    assert is_canonical_path(path, may_have_escaped_slash=target.has_escaped_slash)
    assert is_canonical_path(path) is not target.has_escaped_slash


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(raw: str) -> None:
    with contextlib.suppress(BadRequestError):
        assert parse_target(raw).path.startswith("/")
