"""What passes from the client to the upstream, and what the gateway says itself."""

from __future__ import annotations

import re

import pytest

from gateway.oauth.models import AccessToken
from gateway.proxy.headers import (
    RawHeaders,
    RequestHead,
    check_host,
    choose_request_id,
    read_request_head,
    render_forwarding,
    render_identity,
    render_trace,
    routing_host,
)
from gateway.proxy.problems import (
    BadRequestError,
    ExpectationFailedError,
    HeadTooLargeError,
    NotImplementedMethodError,
)

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


def read(*headers: tuple[bytes, bytes]) -> RequestHead:
    return read_request_head(headers, max_bytes=32768)


def names(head: RequestHead) -> list[bytes]:
    return [line.partition(b":")[0] for line in head.lines]


def test_end_to_end_fields_pass_as_they_came() -> None:
    head = read(
        (b"Accept", b"*/*"), (b"x-Custom", b" a,b"), (b"Cookie", b"a=b"), (b"Via", b"1.1 x")
    )
    assert head.lines == [
        b"Accept: */*\r\n", b"x-Custom:  a,b\r\n", b"Cookie: a=b\r\n", b"Via: 1.1 x\r\n",
    ]  # fmt: skip


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
    ],
)  # fmt: skip
def test_name_that_the_gateway_speaks_under_does_not_pass_in_any_spelling(name: bytes) -> None:
    assert names(read((name, b"evil"), (b"Accept", b"*/*"))) == [b"Accept"]


def test_other_names_with_underscores_pass() -> None:
    assert names(read((b"client_id", b"x"), (b"X_Custom", b"y"))) == [b"client_id", b"X_Custom"]


def test_authorization_is_read_and_not_passed() -> None:
    head = read((b"Authorization", b"Bearer x"), (b"authorization", b"Bearer y"))
    assert head.lines == []
    assert head.all(b"authorization") == [b"Bearer x", b"Bearer y"]


def test_head_above_the_limit_is_431() -> None:
    headers: RawHeaders = [(b"X-%d" % number, b"v" * 1000) for number in range(33)]
    with pytest.raises(HeadTooLargeError):
        read_request_head(headers, max_bytes=32768)
    read_request_head(headers[:30], max_bytes=32768)


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
    check_host(host)


@pytest.mark.parametrize(
    "host", [b"", b"a b", b"a/b", b"a@b", b"a:b", b"[::1", b"ex\xc3\xa4mple", b"a:123456"]
)
def test_host_that_is_none_is_refused(host: bytes) -> None:
    with pytest.raises(BadRequestError):
        check_host(host)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"Example.COM", "example.com"), (b"example.com.", "example.com"),
        (b"example.com.:443", "example.com"), (b"[::1]:80", "[::1]"), (b"[::1]", "[::1]"),
    ],
)  # fmt: skip
def test_host_is_routed_without_case_port_and_trailing_dot(host: bytes, name: str) -> None:
    assert routing_host(host) == name


def test_identity_names_client_and_scopes_in_visible_ascii() -> None:
    token = AccessToken(b"d", "c-1", "Åsa: 100 %\r\nX-Evil: 1", ("a", "b"), 0, 1)
    assert render_identity(token) == (
        b"X-Client-Id: c-1\r\n"
        b"X-Client-Name: %C3%85sa: 100 %25%0D%0AX-Evil: 1\r\n"
        b"X-Token-Scopes: a b\r\n"
    )


def test_request_id_of_a_trusted_proxy_is_kept_and_of_anybody_else_replaced() -> None:
    head = read((b"X-Request-Id", b"abc-1"))
    assert choose_request_id(head, trusted=True) == b"abc-1"
    assert re.fullmatch(rb"[0-9a-f]{32}", choose_request_id(head, trusted=False))


@pytest.mark.parametrize("value", [b"a b", b'"', b"x" * 129, b"\xff"])
def test_request_id_that_could_break_a_log_is_replaced(value: bytes) -> None:
    assert choose_request_id(read((b"X-Request-Id", value)), trusted=True) != value


def test_valid_trace_context_passes() -> None:
    head = read((b"traceparent", TRACE), (b"tracestate", b"a=1"), (b"tracestate", b"b=2"))
    assert render_trace(head, b"x") == (
        b"traceparent: %b\r\ntracestate: a=1\r\ntracestate: b=2\r\n" % TRACE
    )


@pytest.mark.parametrize(
    "values",
    [
        [], [b"nonsense"], [TRACE, TRACE], [b"ff" + TRACE[2:]], [TRACE + b"-extra"],
        [b"00-" + b"0" * 32 + TRACE[35:]], [TRACE.upper()],
    ],
)  # fmt: skip
def test_without_a_valid_trace_context_a_new_one_begins(values: list[bytes]) -> None:
    head = read(*((b"traceparent", value) for value in values), (b"tracestate", b"a=1"))
    request_id = b"0af7651916cd43dd8448eb211c80319c"
    rendered = render_trace(head, request_id)
    assert re.fullmatch(rb"traceparent: 00-%b-[0-9a-f]{16}-01\r\n" % request_id, rendered)


def test_trace_context_of_a_later_version_passes() -> None:
    later = b"01" + TRACE[2:] + b"-more"
    assert later in render_trace(read((b"traceparent", later)), b"x")


CLAIMS = (
    (b"X-Forwarded-For", b"6.6.6.6"), (b"X-Forwarded-Proto", b"HTTPS"),
    (b"X-Forwarded-Host", b"evil.example"), (b"Forwarded", b"for=6.6.6.6"),
)  # fmt: skip


def test_claims_of_an_untrusted_peer_are_replaced() -> None:
    lines = render_forwarding(
        read(*CLAIMS), host=b"h:80", peer="10.0.0.9", scheme=b"http", trusted=False
    )
    assert lines == (
        b"X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h:80\r\n"
        b'Forwarded: for=10.0.0.9;host="h:80";proto=http\r\n'
    )


def test_claims_of_a_trusted_peer_are_kept_and_extended() -> None:
    lines = render_forwarding(
        read(*CLAIMS), host=b"h", peer="10.0.0.9", scheme=b"http", trusted=True
    )
    assert lines == (
        b"X-Forwarded-For: 6.6.6.6, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: evil.example\r\n"
        b'Forwarded: for=6.6.6.6, for=10.0.0.9;host="h";proto=http\r\n'
    )


@pytest.mark.parametrize(
    ("peer", "node"),
    [("::1", b'for="[::1]"'), ("unix", b"for=unknown"), ("1.2.3.4", b"for=1.2.3.4")],
)
def test_forwarded_node_is_written_as_rfc_7239_wants_it(peer: str, node: bytes) -> None:
    assert node in render_forwarding(read(), host=b"h", peer=peer, scheme=b"http", trusted=False)
