"""Heads on one connection: what repeats is not read again, and means the same."""

from __future__ import annotations

import pytest
from support.codec import native_codec
from support.settings import CLIENT_LIMITS

from gateway.codec import absent
from gateway.downstream.h1_head import HeadReader
from gateway.downstream.request import Peer, Request
from gateway.http import request_head
from gateway.http.errors import BadRequestError, HeadTooLargeError

LINES = (
    b"GET /b?c HTTP/1.1", b"GET /a/../b?c HTTP/1.1", b"GET /b?c HTTP/1.0", b"GET /b?cd HTTP/1.1",
    b"POST /b?c HTTP/1.1", b"GET /b?c HTTP/1.9",
)  # fmt: skip
BLOCKS = (b"Host: a", b"Host: a\r\nHost: b", b"Host: a\r\nX: 1", b"", b"Host: [::1]", b"Host: A")


def read(reader: HeadReader, line: bytes, block: bytes) -> object:
    try:
        request = reader.read(line + b"\r\n" + block if block else line)
    except BadRequestError as error:
        return error.reason
    return describe(request)


def describe(request: Request) -> tuple[object, ...]:
    line, head = request.line, request.head
    error = None if request.error is None else request.error.reason
    return (
        line.method, line.target, line.is_http_10, line.onward, line.raw_target,
        head.lines, head.fields, head.host, request.host, request.routing_host, error,
    )  # fmt: skip


@pytest.mark.parametrize("reads_natively", [False, True])
def test_head_means_the_same_whatever_came_before_it_on_the_connection(
    reads_natively: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = native_codec() if reads_natively else absent
    monkeypatch.setattr(request_head, "_CODEC", codec.RequestCodec(request_head.SPECIAL))
    heads = [(line, block) for line in LINES for block in BLOCKS]
    alone = {head: read(HeadReader(Peer("192.0.2.1"), CLIENT_LIMITS), *head) for head in heads}
    reader = HeadReader(Peer("192.0.2.1"), CLIENT_LIMITS)
    for before in heads:
        for head in heads:
            read(reader, *before)
            assert read(reader, *head) == alone[head], (before, head)


def test_head_that_is_too_large_is_rejected() -> None:
    reader = HeadReader(Peer("192.0.2.1"), CLIENT_LIMITS)
    with pytest.raises(HeadTooLargeError):
        reader.read(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 1_000_000)
