"""What the gateway says to the upstream itself."""

from __future__ import annotations

import re

import pytest

from gateway.http.request_head import RequestHead, read_request_head
from gateway.oauth.models import AccessToken
from gateway.proxy.upstream_head import render_forwarding, render_identity, render_trace


def read(*fields: tuple[bytes, bytes]) -> RequestHead:
    block = b"\r\n".join(b"%b: %b" % field for field in fields)
    return read_request_head(block, max_fields=100)


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


def test_identity_names_client_and_scopes_in_visible_ascii() -> None:
    token = AccessToken(b"d", "c-1", "Åsa: 100 %\r\nX-Evil: 1", ("a", "b"), 0, 1)
    assert render_identity(token) == (
        b"X-Client-Id: c-1\r\n"
        b"X-Client-Name: %C3%85sa: 100 %25%0D%0AX-Evil: 1\r\n"
        b"X-Token-Scopes: a b\r\n"
    )


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
        read(*CLAIMS),
        host=b"h:80",
        peer="10.0.0.9",
        scheme="http",
        client_scheme="http",
        trusted=False,
    )
    assert lines == (
        b"X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h:80\r\n"
        b'Forwarded: for=10.0.0.9;host="h:80";proto=http\r\n'
    )


def test_claims_of_a_trusted_peer_are_kept_and_extended() -> None:
    lines = render_forwarding(
        read(*CLAIMS),
        host=b"h",
        peer="10.0.0.9",
        scheme="http",
        client_scheme="https",
        trusted=True,
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
    assert node in render_forwarding(
        read(), host=b"h", peer=peer, scheme="http", client_scheme="http", trusted=False
    )
