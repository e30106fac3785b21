"""Heads of responses on one connection: what repeats is not read again, and means the same."""

from __future__ import annotations

import pytest
from support.codec import native_codec

from gateway.codec import absent
from gateway.http import response_head
from gateway.http.errors import UpstreamProtocolError
from gateway.upstream.h1_head import MAX_RESPONSE_HEAD_BYTES, ResponseHeadReader

HEADS = (
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nContent-Length: 3", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: 1", b"HTTP/1.1 204 No Content", b"",
    b"HTTP/1.1 200 Fine\r\nContent-Length: 3", b"\r\nHTTP/1.1 200 OK",
)  # fmt: skip


def read(reader: ResponseHeadReader, head: bytes) -> object:
    try:
        end = reader.read(head + b"\r\n\r\nabc\r\n\r\n")
    except UpstreamProtocolError as error:
        return error.reason
    found = reader.head
    return (
        end, found.status, found.lines, found.length, found.first_lines, found.keeps_alive,
    )  # fmt: skip


@pytest.mark.parametrize("reads_natively", [False, True])
def test_response_head_means_the_same_whatever_came_before_it_on_the_connection(
    reads_natively: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = native_codec() if reads_natively else absent
    monkeypatch.setattr(response_head, "_CODEC", codec.ResponseCodec(*response_head.CODEC_NAMES))
    alone = {head: read(ResponseHeadReader(), head) for head in HEADS}
    reader = ResponseHeadReader()
    for before in HEADS:
        for head in HEADS:
            read(reader, before)
            assert read(reader, head) == alone[head], (before, head)
    assert reader.read(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r") == -1
    with pytest.raises(UpstreamProtocolError):
        reader.read(b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_RESPONSE_HEAD_BYTES + b"\r\n\r\n")
