"""Heads and framing as the client gets them."""

from __future__ import annotations

import pytest

from gateway.downstream.h1_response import render_head, render_interim_head
from gateway.http.errors import REASON_PHRASES, UpstreamProtocolError
from gateway.http.h1_body import render_chunk
from gateway.http.response_head import ResponseHead, read_response_head

Fields = list[tuple[bytes, bytes]]


def read(status: int, fields: Fields) -> ResponseHead:
    lines = [b"%b: %b" % field for field in fields]
    return read_response_head(
        b"\r\n".join(
            [b"HTTP/1.1 %03d %b" % (status, REASON_PHRASES.get(status, "").encode()), *lines]
        )
    )


def render(
    status: int,
    fields: Fields,
    *,
    is_chunked: bool = False,
    is_http_10: bool = False,
    keep_alive: bool = True,
) -> list[bytes]:
    head = render_head(
        read(status, fields),
        is_chunked=is_chunked,
        is_http_10=is_http_10,
        keep_alive=keep_alive,
        request_id=b"id",
    )
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def test_known_length_passes() -> None:
    assert read(200, [(b"Content-Length", b"3")]).length == 3
    lines = render(200, [(b"Content-Length", b"3"), (b"Server", b"x")])
    assert lines == [b"HTTP/1.1 200 OK", b"Server: x", b"Content-Length: 3", b"X-Request-Id: id"]


def test_chunks_of_the_upstream_are_no_field_of_the_response() -> None:
    fields = [(b"Transfer-Encoding", b"chunked"), (b"Trailer", b"x")]
    assert read(200, fields).is_chunked
    assert render(200, fields) == [b"HTTP/1.1 200 OK", b"X-Request-Id: id"]
    assert b"Transfer-Encoding: chunked" in render(200, fields, is_chunked=True)


def test_http_10_client_that_asked_for_it_is_kept() -> None:
    lines = render(200, [(b"Content-Length", b"1")], is_http_10=True)
    assert b"Connection: keep-alive" in lines


@pytest.mark.parametrize(
    ("status", "is_response_to_head", "has_body"),
    [(200, False, True), (200, True, False), (204, False, False), (304, False, False),
     (103, False, False), (500, False, True)],
)  # fmt: skip
def test_whether_a_body_follows_depends_on_status_and_method(
    status: int, is_response_to_head: bool, has_body: bool
) -> None:
    assert read(status, []).has_body(is_response_to_head=is_response_to_head) is has_body


def test_204_has_no_length() -> None:
    lines = render(204, [(b"Content-Length", b"0")])
    assert not any(line.lower().startswith(b"content-length") for line in lines)


def test_fields_of_the_upstreams_connection_stay_there() -> None:
    lines = render(
        200,
        [
            (b"Connection", b"keep-alive, X-Hop, Content-Length"), (b"Keep-Alive", b"timeout=5"),
            (b"x-hop", b"1"), (b"Content-Length", b"0"), (b"Alt-Svc", b"h3"), (b"Upgrade", b"h2"),
            (b"X-Request-Id", b"theirs"),
        ],
    )  # fmt: skip
    assert lines == [b"HTTP/1.1 200 OK", b"Content-Length: 0", b"X-Request-Id: id"]


def test_closing_is_announced() -> None:
    lines = render(200, [(b"Content-Length", b"0")], keep_alive=False)
    assert b"Connection: close" in lines


@pytest.mark.parametrize("status", [0, 99, 600, 999])
def test_status_that_http_does_not_have_is_an_upstream_error(status: int) -> None:
    with pytest.raises(UpstreamProtocolError):
        render(status, [])


def test_unknown_status_passes_without_a_phrase() -> None:
    assert render(299, [(b"Content-Length", b"0")])[0] == b"HTTP/1.1 299 "


def test_interim_head_passes_its_fields() -> None:
    head = render_interim_head(read(103, [(b"Link", b"</a>"), (b"Connection", b"x")]))
    assert head == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def test_chunk_has_its_length_in_hexadecimal() -> None:
    assert render_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        ([(b"Upgrade", b"WebSocket")], True),
        ([(b"Upgrade", b"h2c")], False),
        ([(b"Upgrade", b"websocket"), (b"Upgrade", b"h2c")], False),
        ([], False),
    ],
)
def test_only_websocket_is_switched_to(fields: Fields, accepted: bool) -> None:
    assert (read(101, fields).upgrade.lower() == b"websocket") is accepted


@pytest.mark.parametrize(
    "block",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3",
        b"HTTP/1.1 200 OK\r\nX: a\nb",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n folded",
        b"HTTP/1.1 200\nOK",
        b"HTTP/2 200",
        b"HTTP/1.1  200 OK",
    ],
)
def test_ambiguous_head_is_an_upstream_error(block: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        read_response_head(block)


@pytest.mark.parametrize(
    ("block", "keeps_alive"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close", False),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close", False),
        # A body that nobody expects would be the beginning of the next response.
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 4", False),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4", True),
    ],
)
def test_connection_can_be_used_again_if_its_version_and_options_say_so(
    block: bytes, keeps_alive: bool
) -> None:
    assert read_response_head(block).keeps_alive is keeps_alive
