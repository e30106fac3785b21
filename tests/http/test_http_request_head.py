"""What passes from the client to the upstream, and what the gateway says itself."""

from __future__ import annotations

import pytest

from gateway.http.errors import (
    BadRequestError,
    ExpectationFailedError,
    HeadTooLargeError,
    NotImplementedMethodError,
)
from gateway.http.request_head import (
    _KNOWN_LINES,
    RequestHead,
    can_become_a_head,
    is_host,
    read_request_head,
    read_request_line,
    routing_host,
)


def read(*fields: tuple[bytes, bytes]) -> RequestHead:
    block = b"\r\n".join(b"%b: %b" % field for field in fields)
    return read_request_head(block, max_fields=100)


def names(head: RequestHead) -> list[bytes]:
    return [line.partition(b":")[0] for line in head.lines.split(b"\r\n")[:-1]]


def test_end_to_end_fields_pass_as_they_came() -> None:
    head = read(
        (b"Accept", b"*/*"), (b"x-Custom", b" a,b"), (b"Cookie", b"a=b"), (b"Via", b"1.1 x")
    )
    assert head.lines == (b"Accept: */*\r\nx-Custom: a,b\r\nCookie: a=b\r\nVia: 1.1 x\r\n")


@pytest.mark.parametrize(
    "name",
    [
        b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authorization", b"TE",
        b"Trailer", b"Upgrade", b"Proxy-Authenticate", b"Alt-Svc",
    ],
)  # fmt: skip
def test_hop_by_hop_field_does_not_pass(name: bytes) -> None:
    assert names(read((name, b"close"), (b"Accept", b"*/*"))) == [b"Accept"]


def test_field_named_in_connection_does_not_pass() -> None:
    head = read(
        (b"X-Secret-Hop", b"1"), (b"Connection", b"close, x-secret-hop"), (b"Accept", b"*/*"),
        (b"Connection", b"X-Other"), (b"x-other", b"1"),
    )  # fmt: skip
    assert names(head) == [b"Accept"]


@pytest.mark.parametrize(
    "name",
    [
        b"X-Client-Id", b"x-client-id", b"X_Client_Id", b"X-Client_Id", b"x_client_name",
        b"X-TOKEN-SCOPES", b"X-Forwarded-For", b"x_forwarded_for", b"X-Forwarded-Host",
        b"X-Forwarded-Proto", b"Forwarded", b"X-Real-IP", b"X_Real_Ip", b"X-Original-URL",
        b"X-Rewrite-URL", b"X-Forwarded-Uri", b"X-Request-Id", b"X-Forwarded-Prefix",
        b"X.Client.Id", b"X-Client~Id", b"x!client'id", b"X-HTTP-Method-Override",
        b"X-HTTP-Method", b"X-Method-Override", b"X_HTTP_Method_Override", b"Proxy",
        b"Client-IP", b"X-Client-IP", b"True-Client-IP", b"X-Cluster-Client-IP",
        b"Content_Length", b"Transfer_Encoding", b"Transfer.Encoding",
    ],
)  # fmt: skip
def test_name_that_the_gateway_speaks_under_does_not_pass_in_any_spelling(name: bytes) -> None:
    assert names(read((name, b"evil"), (b"Accept", b"*/*"))) == [b"Accept"]


def test_other_names_with_underscores_pass() -> None:
    assert names(read((b"client_id", b"x"), (b"X_Custom", b"y"))) == [b"client_id", b"X_Custom"]


def test_field_that_is_dropped_in_any_spelling_is_dropped_in_each() -> None:
    for spelling in (b"X_Cert", b"x-cert", b"X.Cert", b"X|Cert"):
        head = read((spelling, b"evil"), (b"Accept", b"*/*"))
        head.drop_spellings(b"x-cert", keeps_exact=False)
        assert names(head) == [b"Accept"]


def test_authorization_is_read_and_not_passed() -> None:
    head = read((b"Authorization", b"Bearer x"), (b"authorization", b"Bearer y"))
    assert head.lines == b""
    assert head.all(b"authorization") == [b"Bearer x", b"Bearer y"]


@pytest.mark.parametrize(
    "name", [b"Authorization", b"Cookie", b"Proxy-Authorization", b"X-Api-Key", b"client_secret"]
)
def test_line_that_may_hold_a_credential_is_not_kept_in_memory(name: bytes) -> None:
    line = b"%b: credential-that-nobody-keeps" % name
    read_request_head(line, max_fields=1)
    assert line not in _KNOWN_LINES


def test_more_fields_than_the_limit_is_431() -> None:
    block = b"\r\n".join(b"X-%d: v" % number for number in range(11))
    with pytest.raises(HeadTooLargeError):
        read_request_head(block, max_fields=10)
    read_request_head(block, max_fields=11)


def test_only_100_continue_can_be_expected() -> None:
    assert read((b"Expect", b"100-Continue")).expects_continue
    with pytest.raises(ExpectationFailedError):
        read((b"Expect", b"a-pony"))


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip", b"identity", b"xchunked"])
def test_transfer_coding_other_than_chunked_is_501(coding: bytes) -> None:
    with pytest.raises(NotImplementedMethodError):
        read((b"Transfer-Encoding", coding))


@pytest.mark.parametrize(
    "host", [b"example.com", b"example.com:80", b"127.0.0.1:8080", b"[::1]:80", b"a_b.c"]
)
def test_host_of_a_name_or_address_is_accepted(host: bytes) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [
        b"a b",
        b"a/b",
        b"a@b",
        b"a:b",
        b"[::1",
        b"ex\xc3\xa4mple",
        b"a:123456",
        b"a,b",
        b"a%2eb",
        b"a;b",
        b"a'b",
        b"(a)",
        b"*.a",
    ],
)
def test_host_that_is_none_is_refused(host: bytes) -> None:
    with pytest.raises(BadRequestError):
        read((b"Host", host))


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"Example.COM", "example.com"), (b"example.com.", "example.com"),
        (b"example.com.:443", "example.com"), (b"[::1]:80", "[::1]"), (b"[::1]", "[::1]"),
    ],
)  # fmt: skip
def test_host_is_routed_without_case_port_and_trailing_dot(host: bytes, name: str) -> None:
    assert routing_host(host) == name


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 5, 5", b"Content-Length: +5",
        b"Content-Length: 0x5", b"Content-Length: -1", b"Content-Length: ", b"Content-Length: 5 5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"X : 1", b": 1", b"X", b" X: 1",
        b"X: 1\r\n folded: 2", b"X: a\rb", b"X: a\nb", b"X: a\x00b", b"X: a\x7fb", b"X\xe9: 1",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"X: 1\r\n", b"\r\nX: 1",
        b"Host: a\r\nHost: a", b"Content-Length: \xb2",
    ],
)  # fmt: skip
def test_ambiguous_lines_are_rejected(lines: bytes) -> None:
    with pytest.raises(BadRequestError):
        read_request_head(lines, max_fields=100)


def test_framing_is_read() -> None:
    assert read((b"Content-Length", b"007")).length == 7
    assert read((b"Transfer-Encoding", b"Chunked")).is_chunked
    assert not read((b"Content-Length", b"0")).has_body
    assert not read().has_body


@pytest.mark.parametrize(
    "line",
    [
        b"", b"GET", b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1",
        b"GET / HTTP/2.0", b"GET / http/1.1", b"GET / HTTP/1.10", b"G@T / HTTP/1.1",
        b"GET /a b HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET / HTTP/1.1\r",
    ],
)  # fmt: skip
def test_first_line_that_is_no_request_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadRequestError):
        read_request_line(line)


def test_request_line_is_read_the_same_the_second_time() -> None:
    for _ in range(2):
        line = read_request_line(b"GET /a/../b?c=%2F HTTP/1.0")
        assert (line.method, line.target.path, line.target.query) == ("GET", "/b", "?c=%2F")
        assert line.is_http_10
        assert line.onward == b"GET /b?c=%2F HTTP/1.1\r\n"


def test_every_beginning_of_a_head_can_become_one() -> None:
    head = b"PROPFIND /a?b HTTP/1.0\r\nHost: h\r\n"
    assert all(can_become_a_head(head[:end]) for end in range(1, len(head)))


@pytest.mark.parametrize(
    "beginning", [b"\x16\x03\x01", b"GET / HTTP/2", b"GET /\n", b"\n", b"GET / HTTP/1.1\nHost: h"]
)
def test_what_cannot_become_a_head_is_known_at_once(beginning: bytes) -> None:
    assert not can_become_a_head(beginning)
