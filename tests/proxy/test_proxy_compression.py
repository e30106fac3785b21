"""Answers compressed on their way, on real sockets: which, how, and that they stay the same."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Any

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.deadlines import within
from support.protocols import each_protocol, only_http1
from support.running_gateway import Response, RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream

from gateway.http.content_coding import choose_coding

pytestmark = each_protocol

TEXT = b"0123456789" * 500


async def start_compressing(
    start: StartGateway, upstream: RawUpstream, **keys: Any
) -> RunningGateway:
    route = {"name": "a", "match": {"path": "/"}, "auth": "none", "upstream": "main"}
    return await start(upstream.url, routes=[route | {"compress": keys}])


async def fetch(
    gateway: RunningGateway, accept: str | None = "gzip", line: str = "GET / HTTP/1.1"
) -> Response:
    client = await gateway.connect()
    fields = [] if accept is None else [f"Accept-Encoding: {accept}"]
    await client.send("\r\n".join([line, "Host: h", *fields, "", ""]).encode())
    return await client.read_response(has_body=not line.startswith("HEAD"))


def respond_with(
    upstream: RawUpstream,
    *fields: str,
    kind: str = "application/json",
    status: str = "200 OK",
    body: bytes = TEXT,
) -> None:
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *fields]
    head += [f"Content-Length: {len(body)}", "", ""]
    is_bodiless = status.startswith("304")
    upstream.respond = lambda received: (
        "\r\n".join(head).encode()
        + (b"" if is_bodiless or received.request_line.startswith(b"HEAD") else body)
    )


async def test_response_is_compressed_and_says_so(
    start: StartGateway, upstream: RawUpstream, upstream_protocol: str
) -> None:
    respond_with(upstream, 'ETag: "v1"', "Accept-Ranges: bytes", "Vary: Accept")
    gateway = await start_compressing(start, upstream, encodings=["br", "gzip"])
    for accept, coding in (("gzip", "gzip"), ("gzip, br", "br"), ("br;q=0.5, gzip", "gzip")):
        response = await fetch(gateway, accept)
        assert response.header("Content-Encoding") == coding
        # HTTP/2 has a frame for the head, and so the response streams.
        length = str(len(response.body)) if upstream_protocol == "http/1.1" else None
        assert response.header("Content-Length") == length
        assert response.header("ETag") == 'W/"v1"'
        assert response.header("Accept-Ranges") is None
        assert ("Vary", "Accept-Encoding") in response.headers
        decode = brotli.decompress if coding == "br" else gzip.decompress
        assert decode(response.body) == TEXT
        assert len(response.body) < len(TEXT) / 10
    plain = await fetch(gateway, None)
    assert (plain.body, plain.header("ETag")) == (TEXT, '"v1"')
    assert ("Vary", "Accept-Encoding") in plain.headers


@pytest.mark.parametrize(
    ("fields", "kind", "status", "body"),
    [
        (["Content-Encoding: br"], "text/html", "200 OK", TEXT),
        (["Cache-Control: public, No-Transform"], "text/html", "200 OK", TEXT),
        (["Content-Range: bytes 0-9/99"], "text/html", "206 Partial Content", TEXT),
        ([], "image/png", "200 OK", TEXT),
        ([], "text/event-stream", "200 OK", TEXT),
        ([], "text/html", "200 OK", b"small"),
        (['ETag: "a"'], "text/html", "304 Not Modified", TEXT),
    ],
)
async def test_response_that_must_not_change_is_left_alone(
    start: StartGateway, upstream: RawUpstream, fields: list[str], kind: str, status: str,
    body: bytes,
) -> None:  # fmt: skip
    respond_with(upstream, *fields, kind=kind, status=status, body=body)
    gateway = await start_compressing(start, upstream, types=["text/html", "text/event-stream"])
    client = await gateway.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n")
    response = await client.read_response(has_body=not status.startswith("304"))
    assert response.header("Content-Encoding") == (
        "br" if fields[:1] == ["Content-Encoding: br"] else None
    )
    assert response.header("Content-Length") == str(len(body))
    if not status.startswith("304"):
        assert response.body == body
    else:
        assert response.header("ETag") == '"a"'


@only_http1
async def test_head_is_described_as_get_and_old_clients_get_it_as_it_is(
    start: StartGateway, upstream: RawUpstream
) -> None:
    respond_with(upstream)
    gateway = await start_compressing(start, upstream)
    head = await fetch(gateway, line="HEAD / HTTP/1.1")
    assert (head.header("Content-Length"), head.header("Content-Encoding")) == (None, "gzip")
    assert (await fetch(gateway, line="GET / HTTP/1.0")).body == TEXT


async def test_stream_is_readable_as_far_as_it_has_come(
    start: StartGateway, upstream: RawUpstream
) -> None:
    go_on = asyncio.Event()

    async def script(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            b"\r\n6\r\nfirst\n\r\n"
        )
        await go_on.wait()
        await conversation.send(b"5\r\nlast\n\r\n0\r\n\r\n")

    upstream.script = script
    gateway = await start_compressing(start, upstream)
    client = await gateway.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n")
    decoder = zlib.decompressobj(31)
    text = b""
    async with within():
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"Content-Encoding: gzip\r\n" in head
        assert b"Content-Length" not in head
        while text != b"first\n":
            size = int(await client.reader.readuntil(b"\r\n"), 16)
            text += decoder.decompress((await client.reader.readexactly(size + 2))[:-2])
        go_on.set()
        while size := int(await client.reader.readuntil(b"\r\n"), 16):
            text += decoder.decompress((await client.reader.readexactly(size + 2))[:-2])
    assert text == b"first\nlast\n"
    assert decoder.eof


async def test_response_that_breaks_off_never_looks_whole(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async def script(conversation: Conversation, upstream: RawUpstream) -> None:
        await conversation.read_head()
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99999\r\n\r\n" + TEXT
        )

    upstream.script = script
    gateway = await start_compressing(start, upstream)
    client = await gateway.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n")
    assert not (await client.read_to_end()).endswith(b"0\r\n\r\n")


async def test_large_response_of_known_length_is_the_same_at_the_other_end(
    start: StartGateway, upstream: RawUpstream
) -> None:
    body = b"".join(b"%d\n" % number for number in range(200_000))
    respond_with(upstream, kind="text/csv", body=body)
    gateway = await start_compressing(start, upstream)
    client = await gateway.connect()
    for _ in range(2):
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n")
        response = await client.read_response()
        assert response.header("Transfer-Encoding") == "chunked"
        assert gzip.decompress(response.body) == body


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (b"gzip", "gzip"), (b"br, gzip", "br"), (b"GZIP;Q=0.3", "gzip"), (b"x-gzip", "gzip"),
        (b"*", "br"), (b"*;q=0.1, br;q=0", "gzip"), (b"gzip;q=0", None), (b"", None),
        (b"identity", None), (b"gzip;q=0.2, identity;q=0.9", None), (b"deflate", None),
        (b"gzip;q=2", None), (b"gzip;q=0.5;x=y", None), (b"br;q=0.4, gzip;q=0.8", "gzip"),
    ],
)  # fmt: skip
def test_coding_is_the_one_that_the_client_likes_best(accepted: bytes, coding: str | None) -> None:
    assert choose_coding([accepted], ["br", "gzip"]) == coding


@given(st.lists(st.binary(max_size=30), max_size=3))
def test_any_accept_encoding_leads_to_a_coding_of_ours_or_none(values: list[bytes]) -> None:
    assert choose_coding(values, ["br", "gzip"]) in {"br", "gzip", None}
