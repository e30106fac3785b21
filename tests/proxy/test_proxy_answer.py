"""Heads and framing as the client gets them."""

from __future__ import annotations

import pytest

from gateway.proxy.answer import (
    Framing,
    is_websocket_accepted,
    render_chunk,
    render_head,
    render_interim_head,
)
from gateway.proxy.headers import RawHeaders
from gateway.proxy.problems import UpstreamProtocolError


def render(
    status: int,
    headers: RawHeaders,
    *,
    has_body: bool = True,
    is_http_10: bool = False,
    keep_alive: bool = True,
) -> tuple[list[bytes], Framing]:
    head, framing = render_head(
        status, headers,
        has_body=has_body, is_http_10=is_http_10, keep_alive=keep_alive, request_id=b"id",
    )  # fmt: skip
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n"), framing


def test_known_length_passes() -> None:
    lines, framing = render(200, [(b"Content-Length", b"3"), (b"Server", b"x")])
    assert framing is Framing.LENGTH
    assert lines == [b"HTTP/1.1 200 OK", b"Content-Length: 3", b"Server: x", b"X-Request-Id: id"]


def test_unknown_length_is_chunked_for_http_11() -> None:
    lines, framing = render(200, [(b"Transfer-Encoding", b"chunked"), (b"Trailer", b"x")])
    assert framing is Framing.CHUNKED
    assert b"Transfer-Encoding: chunked" in lines
    assert b"Trailer: x" not in lines


def test_unknown_length_ends_with_the_connection_for_http_10() -> None:
    lines, framing = render(200, [(b"Transfer-Encoding", b"chunked")], is_http_10=True)
    assert framing is Framing.CLOSE
    assert b"Connection: close" in lines
    assert not any(line.startswith(b"Transfer-Encoding") for line in lines)


def test_http_10_client_that_asked_for_it_is_kept() -> None:
    lines, _ = render(200, [(b"Content-Length", b"1")], is_http_10=True)
    assert b"Connection: keep-alive" in lines


def test_answer_without_body_announces_none() -> None:
    lines, framing = render(304, [(b"ETag", b'"x"')], has_body=False)
    assert framing is Framing.LENGTH
    assert lines == [b"HTTP/1.1 304 Not Modified", b'ETag: "x"', b"X-Request-Id: id"]


def test_204_has_no_length() -> None:
    lines, _ = render(204, [(b"Content-Length", b"0")], has_body=False)
    assert not any(line.lower().startswith(b"content-length") for line in lines)


def test_fields_of_the_upstreams_connection_stay_there() -> None:
    lines, _ = render(
        200,
        [
            (b"Connection", b"keep-alive, X-Hop, Content-Length"), (b"Keep-Alive", b"timeout=5"),
            (b"x-hop", b"1"), (b"Content-Length", b"0"), (b"Alt-Svc", b"h3"), (b"Upgrade", b"h2"),
            (b"X-Request-Id", b"theirs"),
        ],
    )  # fmt: skip
    assert lines == [b"HTTP/1.1 200 OK", b"Content-Length: 0", b"X-Request-Id: id"]


def test_closing_is_announced() -> None:
    lines, _ = render(200, [(b"Content-Length", b"0")], keep_alive=False)
    assert b"Connection: close" in lines


@pytest.mark.parametrize("status", [0, 99, 600, 999])
def test_status_that_http_does_not_have_is_an_upstream_error(status: int) -> None:
    with pytest.raises(UpstreamProtocolError):
        render(status, [])


def test_unknown_status_passes_without_a_phrase() -> None:
    assert render(299, [(b"Content-Length", b"0")])[0][0] == b"HTTP/1.1 299 "


def test_interim_head_passes_its_fields() -> None:
    head = render_interim_head(103, [(b"Link", b"</a>"), (b"Connection", b"x")])
    assert head == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def test_chunk_has_its_length_in_hexadecimal() -> None:
    assert render_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ([(b"Upgrade", b"WebSocket")], True),
        ([(b"Upgrade", b"h2c")], False),
        ([(b"Upgrade", b"websocket"), (b"Upgrade", b"h2c")], False),
        ([], False),
    ],
)
def test_only_websocket_is_switched_to(headers: RawHeaders, accepted: bool) -> None:
    assert is_websocket_accepted(headers) is accepted
