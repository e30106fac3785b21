"""Where a body ends, wherever the wire splits it; judged by llhttp, too."""

from __future__ import annotations

import re

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.http.h1_body import Body, BodyFramingError, ChunkedBody, EndlessBody, SizedBody

CHUNKS = b'3;a=1;b="c"\r\nabc\r\n0A \t; x\r\n0123456789\r\n000\r\nX-Trailer: 1\r\nY: 2\r\n\r\nnext'


def read(body: Body, pieces: list[bytes]) -> bytes:
    return b"".join(body.feed(piece) for piece in pieces if not body.is_complete)


@pytest.mark.parametrize("split", range(len(CHUNKS) + 1))
def test_chunks_are_read_wherever_they_are_split(split: int) -> None:
    body = ChunkedBody()
    content = read(body, [CHUNKS[:split], CHUNKS[split:]])
    assert (content, body.is_complete) == (b"abc0123456789", True)
    assert b"next".startswith(body.rest), "what came behind the end is kept apart"


def test_chunks_are_read_byte_by_byte() -> None:
    body = ChunkedBody()
    content = b""
    for at in range(len(CHUNKS) - 4):
        assert not body.is_complete
        content += body.feed(CHUNKS[at : at + 1])
    assert (body.is_complete, body.rest, content) == (True, b"", b"abc0123456789")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"zz\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"1 \r\n", b"1\n",
        b"1\r\r\n",
        b"1\r\nab", b"1\r\na\n", b"1\r\na\rb", b"1;\x00\r\n", b"1;a\nb\r\n", b"1" * 16 + b"\r\n",
        b"1;" + b"x" * 300, b"0\r\nX: a\x00\r\n\r\n", b"0\r\n folded\r\n\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\n" + b"X: 1\r\n" * 4000, b"0\r\nX: 1\n\r\n", b";\r\n", b"1\rx\n",
    ],
)  # fmt: skip
def test_broken_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(BodyFramingError):
        read(ChunkedBody(), [data])
    body = ChunkedBody()
    with pytest.raises(BodyFramingError):
        read(body, [data[at : at + 1] for at in range(len(data))])


@pytest.mark.parametrize("split", range(1, 9))
def test_sized_body_ends_at_its_length(split: int) -> None:
    body = SizedBody(5)
    assert read(body, [b"hello<<<"[:split], b"hello<<<"[split:]]) == b"hello"
    assert body.is_complete
    assert b"<<<".endswith(body.rest)


def test_empty_body_is_complete_from_the_start() -> None:
    assert SizedBody(0).is_complete


def test_endless_body_takes_everything() -> None:
    body = EndlessBody()
    assert (body.feed(b"abc"), body.is_complete) == (b"abc", False)


class LlhttpEvents:
    """What llhttp makes of the same bytes."""

    def __init__(self) -> None:
        self.content = b""
        self.is_complete = False

    def on_body(self, piece: bytes) -> None:
        """A piece."""
        self.content += piece

    def on_message_complete(self) -> None:
        """The end."""
        self.is_complete = True


pieces = st.sampled_from(
    [b"0", b"1", b"5", b"a", b"F", b"\r\n", b"\r", b"\n", b";", b";x=1", b"hello", b" ",
     b"X: 1\r\n",
     b"\t", b"\x00", b"0\r\n\r\n", b"1\r\na\r\n", b":", b"\xff"]
)  # fmt: skip


@given(st.lists(pieces, max_size=14).map(b"".join))
@example(b"0; 0\r\n\r\n")
def test_what_is_taken_for_a_whole_body_llhttp_takes_for_the_same(data: bytes) -> None:
    body = ChunkedBody()
    try:
        content = body.feed(data) if data else b""
    except BodyFramingError:
        return
    if not body.is_complete:
        return
    events = LlhttpEvents()
    parser = httptools.HttpRequestParser(events)
    message = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    try:
        parser.feed_data(message + data[: len(data) - len(body.rest)])
    except httptools.HttpParserError:
        # It rejects white space in chunk extensions, which recipients have to take (RFC 9112
        # section 7.1.1).
        assert re.search(rb";.*[ \t]|[ \t];", data)
        return
    assert (events.content, events.is_complete) == (content, True)
