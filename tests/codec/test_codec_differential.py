"""The native codec reads what the Python readers read, exactly, or leaves it to them.

`tests/hardening/test_hardening_fuzz.py` searches by Hypothesis and by coverage, with the same
comparison; `python -m fuzz.differential` runs longer.
"""

from __future__ import annotations

import pytest
from support.codec import native_codec
from support.tiers import slow

from fuzz.differential import SEEDS, Readers, compare

CASES = 1_000_000
USUAL = {
    "request_head": b"GET /a/b.c?d=e HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\nX-Request-Id: 1",
    "request_line": b"PROPFIND /a/b/ HTTP/1.0",
    "request_fields": b"Host: h\r\nContent-Length: 3\r\nConnection: close\r\nCookie: a=b",
    "response_head": b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3\r\nSet-Cookie: a=b",
    "h2_request": b":method=PROPFIND|:path=/a/b?c|:scheme=https|:authority=h:80|cookie=a|te=b",
    "h2_response": b":status=200|date=x|content-length=3|set-cookie=a=b|grpc-status=0",
    "h2_lines": b"Date:x\r\nContent-Length: 3\r\nTE: trailers\r\nX-A: \tb ",
    "bearer": b"bEARER  abc==",
    "traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "access_line": b"192.0.2.7|GET|/api/orders/17|orders|||orders|",
    "prefix": b"/|/a|/a/b/c",
    "digest": b"a" * 1000,
}
LEFT_TO_PYTHON = {
    "request_head": (b"GET /a HTTP/1.1\r\nHost: h\r\nCookie: gateway_session=1",),
    "request_line": (b"get / HTTP/1.1", b"CONNECT / HTTP/1.1", b"GET /a/../b HTTP/1.1",
                     b"GET //a HTTP/1.1", b"GET /%41 HTTP/1.1", b"GET /a;b HTTP/1.1",
                     b"GET / HTTP/2.0", b"GET /#a HTTP/1.1", b"GET /a HTTP/1.1 ", b""),
    "request_fields": (b"Host: h\r\nHost: h", b"Host: [::1]", b"Host: a,b", b"Content-Length: +1",
                       b"Content-Length: 1\r\nTransfer-Encoding: chunked", b"X_Client_Id: a",
                       b"Connection: x-mine\r\nX-Mine: 1", b"A: b\r\n c", b"A : b", b"A: \0",
                       b"A: b\nB: c", b"A: b\r\n", b"Expect: 100-continue", b": b",
                       b"\r\n".join([b"A: b"] * 13)),
    "response_head": (b"HTTP/1.1 200 Fine", b"HTTP/1.1 600 ", b"HTTP/2 200",
                      b"HTTP/1.1 200 OK\r\nSet-Cookie: gateway_console=1",
                      b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked"),
    "h2_request": (b":method=GET|:scheme=http|:path=/|a=b|:authority=h", b":path=/", b"",
                   b":method=GET|:method=GET|:path=/", b":method=GET", b":method=GET|:path=*",
                   b":method=CONNECT|:path=/", b":method=get|:path=/", b":method=G T|:path=/",
                   b":method=GET|:path=/a/../b", b":method=GET|:path=/a b", *(
                       b":method=GET|:path=/|" + rest for rest in (
                           b":scheme=ftp", b":protocol=websocket", b":authority=a|host=b",
                           b"host=a|host=a", b"Host=a", b"a=b\r\nhost: h", b"a= b", b"a=b ",
                           b"a=\0", b"x_client_id=a", b"cookie=gateway_session=a", b"=a", b"a:b=c",
                           b"|".join([b"a=b"] * 13), b"a=" + b"b" * 1000))),
    "h2_response": (b"date=x", b":status=99", b":status=600", b":status=2000", b":status=2x0",
                    *(b":status=200|" + rest for rest in (
                        b":status=200", b"Date=x", b"connection=close", b"a=b\r\nc: d", b"a= b",
                        b"content-length=1|content-length=1", b"content-length=+1", b"a\r=b",
                        b"set-cookie=gateway_console=1", b"clear-site-data=*"))),
    "h2_lines": (b"A", b": b", b"A : b", b"A: b\nB: c", b"A: b\r\n c", b"A: \0",
                 b"A: b\r\n\r\nB: c"),
    "bearer": (b"Bearer", b"Bearer ", b"Bearer a b", b"Bearer a=b", b"Bearer\ta", b"Basic abc"),
    "access_line": (b'192.0.2.7|GET|/"|r|', b"h|GET|/|r|||\\|", "h|GET|/é|r|".encode()),
    "prefix": (b"/a|/b", b"/a|/a/" + b"b" * 80, b"/a|/ab"),
    "traceparent": (b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01", b"", b"ff-" + b"1" * 52),
}  # fmt: skip


@pytest.fixture(scope="module")
def readers() -> Readers:
    return Readers(native_codec())


@pytest.mark.parametrize("name", SEEDS)
def test_codec_reads_what_is_usual(readers: Readers, name: str) -> None:
    assert getattr(readers, name)(USUAL[name])


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name, cases in LEFT_TO_PYTHON.items() for case in cases],
    ids=repr,
)
def test_codec_leaves_what_is_odd_to_python(readers: Readers, name: str, case: bytes) -> None:
    assert not getattr(readers, name)(case)


def test_codec_writes_heads_of_any_size(readers: Readers) -> None:
    lines = [b"Host: h", *(b"X-%d:%b" % (number, b"v" * 7000) for number in range(9))]
    assert readers.request_fields(b"\r\n".join(lines))


@pytest.mark.parametrize("name", SEEDS)
def test_no_mutated_case_is_read_otherwise_than_by_python(readers: Readers, name: str) -> None:
    assert compare(readers, name, cases=3000, seed=2) > 0


@slow("differential")
@pytest.mark.parametrize("name", SEEDS)
def test_no_case_of_a_million_is_read_otherwise_than_by_python(readers: Readers, name: str) -> None:
    assert compare(readers, name, cases=CASES) > CASES // 100
