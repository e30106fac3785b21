"""Readers by others (h11, llhttp of httptools) take what the codec reads, and as it does."""

from __future__ import annotations

from itertools import islice
from typing import Any

import h11
import httptools
import pytest
from support.codec import native_codec

from fuzz.differential import MAX_FIELDS, mutations
from gateway.http.fields import parse_field
from gateway.http.request_head import SPECIAL

CASES = 4000
END = b"\r\n\r\n"
Fields = list[tuple[bytes, bytes]]


class _Llhttp:
    """Keeps what llhttp reads."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: Fields = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))


def read_by_llhttp(head: bytes) -> tuple[bytes, bytes, Fields] | None:
    kept = _Llhttp()
    parser = httptools.HttpRequestParser(kept)
    try:
        parser.feed_data(head + b"\r\n\r\n")
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    return parser.get_method(), kept.url, kept.fields


def read_by_h11(head: bytes) -> tuple[bytes, bytes, Fields] | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(head + b"\r\n\r\n")
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.Request)
    return event.method, event.target, list(event.headers)


@pytest.fixture(scope="module")
def heads() -> list[tuple[bytes, Any]]:
    """Mutated heads that the codec reads, and what it reads."""
    reader = native_codec().RequestCodec(SPECIAL)
    read = (
        (head, reader.read(head + END, b"", b"\r\n", MAX_FIELDS, 1 << 16))
        for head in mutations("request_head", 3)
        if END not in head
    )
    taken = ((head, record) for head, record in read if record is not None and record[1][0])
    return list(islice(taken, CASES))


@pytest.mark.parametrize("reader", [read_by_llhttp, read_by_h11])
def test_other_readers_take_what_the_codec_reads_as_it_does(
    heads: list[tuple[bytes, Any]], reader: Any
) -> None:
    compared = 0
    for head, (line, (block, *_), _) in heads:
        theirs = reader(head)
        if theirs is None:
            # Methods that llhttp does not know, versions above 1.1, or (h11) no Host.
            continue
        method, path, query, _, _ = line
        ours = [parse_field(one) for one in block.split(b"\r\n")]
        assert theirs[0] == method.encode()
        assert theirs[1] == (path + query).encode()
        assert theirs[2] == [(name.lower(), value) for name, value in ours], head
        compared += 1
    assert compared > CASES // 2


def test_h11_rejects_nothing_that_the_codec_reads_but_for_a_missing_host(
    heads: list[tuple[bytes, Any]],
) -> None:
    for head, (line, (_, fields, *_), _) in heads:
        if read_by_h11(head) is None:
            assert b"host" not in fields, head
            assert not line[3]
