"""Bodies in very many pieces."""

from __future__ import annotations

from support.growth import assert_grows_linearly, cost_of

from gateway.http.h1_body import ChunkedBody


def test_small_chunks_cost_a_few_lines_each() -> None:
    def read(chunks: int) -> int:
        body = ChunkedBody()

        def feed() -> None:
            body.feed(b"1\r\nx\r\n" * chunks)
            while body.has_more:
                body.feed(b"")

        return cost_of(feed)

    assert_grows_linearly(read, 1000)
    assert read(1000) < 20 * 1000


def test_small_chunks_are_read_however_they_are_cut() -> None:
    whole = b"1\r\na\r\n2\r\nbc\r\n10\r\n0123456789abcdef\r\n3;x=y\r\ndef\r\n0\r\n\r\nrest"
    for first in range(len(whole)):
        for second in range(first, len(whole), 3):
            body = ChunkedBody()
            read = b""
            behind = b""
            for piece in (whole[:first], whole[first:second], whole[second:]):
                if body.is_complete:
                    behind += piece
                else:
                    read += body.feed(piece)
            assert read == b"abc0123456789abcdefdef"
            assert body.is_complete
            assert body.rest + behind == b"rest"
