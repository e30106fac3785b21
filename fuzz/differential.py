"""Compares the native codec with the Python readers, which define what it returns.

    python -m fuzz.differential                            # 100,000 mutated cases for each reader
    python -m fuzz.differential request_head --cases 1000000
    CODEC=path/to/native.so python -m fuzz.differential    # a build of its own, such as with ASAN

What the codec reads, it reads exactly as Python does; what Python rejects, it never reads. One
difference is a security defect: the case is printed, and belongs into `fuzz/cases/codec_READER`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from msgspec import json

from gateway.access_log import AccessRecord, Timestamps
from gateway.downstream.h2_head import RESPONSE_LISTER, sort_fields
from gateway.http import request_head as requests
from gateway.http import response_head as responses
from gateway.http.errors import ProblemError, UpstreamProtocolError
from gateway.http.fields import FieldSyntaxError
from gateway.oauth.bearer import read_bearer
from gateway.oauth.errors import BearerError
from gateway.proxy.request_log import _milliseconds
from gateway.proxy.tracing import TRACEPARENT

ROOT = Path(__file__).parent.parent
MAX_FIELDS = 12
_HEAD = ("_block", "fields", "lines", "length", "is_chunked", "closes", "keeps_alive",
         "takes_trailers", "upgrade", "wants_websocket", "is_grpc", "host")  # fmt: skip
_LINE = ("method", "target", "is_http_10", "onward", "raw_target")
_RESPONSE = ("status", "lines", "first_lines", "has_date", "is_chunked", "upgrade",
             "keepalive_s", "keeps_alive", "length", "withheld")  # fmt: skip


def load_codec() -> ModuleType:
    """Return the native codec: the one installed, or one that is built from the source tree.

    Raises `OSError` and `subprocess.CalledProcessError` where there is no compiler.
    """
    path = os.environ.get("CODEC")
    if path is None:
        if importlib.util.find_spec("gateway.codec.native") is not None:
            return importlib.import_module("gateway.codec.native")
        path = str(runpy.run_path(str(ROOT / ".ci" / "codec.py"))["build"]())
    spec = importlib.util.spec_from_file_location("gateway.codec.native", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Readers:
    """The readers of a codec beside those of Python. Each method raises `AssertionError` for a
    difference, and returns whether the codec read the case at all."""

    def __init__(self, codec: ModuleType) -> None:
        self._codec = codec
        self._requests = codec.RequestCodec(requests.SPECIAL)
        self._responses = codec.ResponseCodec(*responses.CODEC_NAMES)
        self._lines = codec.LineLister(RESPONSE_LISTER.dropped)

    def request_head(self, data: bytes) -> bool:
        """A whole head of a request, and what follows it."""
        data += b"\r\n\r\nrest\r\n\r\n"
        end = data.find(b"\r\n\r\n")
        first, _, block = data[:end].partition(b"\r\n")
        read = self._requests.read
        limits = MAX_FIELDS, end
        record = read(data, b"", b"\r\n" + block, *limits)
        if record is None:
            return False
        self._same_line(first, record[0])
        self._same_head(block, record[1])
        assert record[2] == end + 4
        assert read(data, b"", b"\r\n" + block, MAX_FIELDS, end - 1) is None
        assert read(data[: end + 3], b"", b"\r\n" + block, *limits) is None
        assert read(data, b"", block, *limits) == (record[0], None, end + 4)
        line = record[0][-1]
        known = None if data.startswith(line) else record[0]
        assert read(data, line, b"\r\n" + block, *limits) == (known, *record[1:])
        assert read(data, line, block, *limits) == (known, None, end + 4)
        return True

    def request_line(self, data: bytes) -> bool:
        """A request line."""
        record = self._requests.read_line(data)
        if record is None:
            return False
        self._same_line(data, record)
        return True

    def request_fields(self, data: bytes) -> bool:
        """The lines of fields of a request."""
        record = self._requests.read_fields(data, MAX_FIELDS)
        if record is None:
            return False
        self._same_head(data, record)
        return True

    def response_head(self, data: bytes) -> bool:
        """The head of a response, and what follows it."""
        data += b"\r\n\r\nrest\r\n\r\n"
        end = data.find(b"\r\n\r\n")
        head = data[:end]
        read = self._responses.read(data, b"", end)
        assert (None if read is None else read[0]) == self._responses.read_head(head)
        if read is None:
            return False
        assert read[1] == end
        assert self._responses.read(data, head, end) == (None, end)
        assert self._responses.read(data, b"", end - 1) is None
        assert self._responses.read(data[: end + 3], b"", end) is None
        try:
            expected = responses.parse_response_head(head)
        except UpstreamProtocolError as error:
            raise AssertionError("the codec reads what Python rejects") from error
        _compare(responses.response_of(read[0]), expected, _RESPONSE)
        return True

    def h2_request(self, data: bytes) -> bool:
        """The fields of a request of HTTP/2."""
        fields = _fields(data)
        limits = MAX_FIELDS, 1000
        read = self._requests.read_h2(fields, b"", None, *limits)
        if read is None:
            return False
        try:
            pseudo, lines = sort_fields(fields, max_fields=limits[0], max_bytes=limits[1])
        except ProblemError as error:
            raise AssertionError("the codec reads what Python rejects") from error
        method, path = pseudo[b":method"], pseudo[b":path"]
        assert method != b"CONNECT"
        assert path.startswith(b"/")
        self._same_line(b"%b %b HTTP/1.1" % (method, path), read[0])
        block = b"\r\n".join(lines)
        assert block.count(b"\n") == max(len(lines) - 1, 0)
        self._same_head(block, read[1], max_fields=len(lines))
        line = read[0][-1]
        assert self._requests.read_h2(fields, line, block, *limits) == (None, None)
        assert self._requests.read_h2(fields, line, None, *limits) == (None, read[1])
        assert self._requests.read_h2(fields, line[:-1], block, *limits) == (read[0], None)
        assert self._requests.read_h2(fields, b"", block + b"\r\n", *limits) == read
        assert self._requests.read_h2(list(fields), b"", None, *limits) is None
        return True

    def h2_response(self, data: bytes) -> bool:
        """The fields of a response of HTTP/2."""
        fields = _fields(data)
        record = self._responses.read_h2(fields)
        if record is None:
            return False
        try:
            expected = responses.parse_response_fields(fields)
        except UpstreamProtocolError as error:
            raise AssertionError("the codec reads what Python rejects") from error
        _compare(responses.response_of(record), expected, _RESPONSE)
        return True

    def h2_lines(self, data: bytes) -> bool:
        """Lines of fields, each with its end, as HTTP/2 has them."""
        lines = data + b"\r\n" if data else b""
        first, last = ((b":status", b"200"),), ((b"x-request-id", b"1"),)
        listed = self._lines.fields(first, lines, last)
        if listed is None:
            return False
        try:
            assert listed == RESPONSE_LISTER.parse(first, lines, last)
        except FieldSyntaxError as error:
            raise AssertionError("the codec lists what Python rejects") from error
        assert all(type(part) is bytes for field in listed for part in field)
        return True

    def bearer(self, data: bytes) -> bool:
        """An Authorization value."""
        digest = self._codec.digest_bearer(data)
        if digest is None:
            return False
        try:
            token = read_bearer([data])
        except BearerError as error:
            raise AssertionError("the codec reads what Python rejects") from error
        assert digest == hashlib.sha256(token.encode("ascii")).digest()
        return True

    def traceparent(self, data: bytes) -> bool:
        """A traceparent value."""
        if self._codec.is_traceparent(data) is None:
            return False
        assert TRACEPARENT.fullmatch(data)
        return True

    def access_line(self, data: bytes) -> bool:
        """A line of the access log: texts and numbers out of the case."""
        texts = [part.decode("utf-8", "replace") for part in data.split(b"|")]
        texts += [""] * (8 - len(texts))
        client, method, path, route, reason, client_id, upstream, protocol = texts[:8]
        number = int.from_bytes(data[:7], "big")
        duration_s, upstream_s = number / 1e6 / 997, number % 100_003 / 1e6
        counts = number % 600, number % 3 * (number >> 20), number % 2 * number
        grpc_status = number % 18 - 1
        now, request_id = number / 3e5, path.encode("ascii", "replace")
        time = Timestamps(lambda: now).now() if now < 253402300800 else ""
        record = AccessRecord(
            time, client, method, path, route, counts[0], "upstream", _milliseconds(duration_s),
            request_id.decode("ascii"), reason, client_id, upstream,
            _milliseconds(upstream_s) if upstream else None, *counts[1:],
            grpc_status if grpc_status >= 0 else None, protocol,
        )  # fmt: skip
        lines = bytearray(b"before\n")
        if not self._codec.write_access_line(
            lines, now, client, method, path, route, counts[0], "upstream", duration_s, request_id,
            reason, client_id, upstream, upstream_s, *counts[1:], grpc_status, protocol,
        ):  # fmt: skip
            assert lines == b"before\n"
            return False
        expected = bytearray(b"before\n") + json.encode(record) + b"\n"
        assert lines == expected, (lines, expected)
        return True

    def prefix(self, data: bytes) -> bool:
        """The longest prefix of a path among those of routes."""
        paths, _, path = data.decode("latin-1").rpartition("|")
        table = {one: one for one in paths.split("|")}
        found = self._codec.longest_prefix(table, path)
        if not found:
            return False
        while path not in table:
            assert path[0] == "/" != path
            path = path[: path.rindex("/")] or "/"
        assert found == path
        return True

    def digest(self, data: bytes) -> bool:
        """A SHA-256 digest."""
        expected = hashlib.sha256(data).digest()
        assert self._codec.sha256(data) == self._codec.sha256(data, True) == expected
        return True

    def _same_line(self, line: bytes, record: Any) -> None:
        try:
            expected = requests.parse_request_line(line)
        except ProblemError as error:
            raise AssertionError("the codec reads what Python rejects") from error
        _compare(requests.line_of(record), expected, _LINE)

    def _same_head(self, block: bytes, record: Any, *, max_fields: int = MAX_FIELDS) -> None:
        try:
            expected = requests.parse_request_head(block, max_fields=max_fields)
        except ProblemError as error:
            raise AssertionError("the codec reads what Python rejects") from error
        _compare(requests.head_of(record), expected, _HEAD)
        for name, values in expected.fields.items():
            assert type(name) is bytes
            assert all(type(value) is bytes for value in values)


def _compare(read: object, expected: object, names: tuple[str, ...]) -> None:
    for name in names:
        ours, theirs = getattr(read, name), getattr(expected, name)
        assert ours == theirs, (name, ours, theirs)
        assert type(ours) is type(theirs), (name, ours, theirs)


def _fields(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Fields out of a case, whose values may hold anything."""
    parts = (part.partition(b"=") for part in data.split(b"|"))
    return tuple((name, value) for name, _, value in parts)


_REQUEST = (
    b"GET /api/orders/17?page=2&sort=name HTTP/1.1\r\nHost: gateway.example:8443\r\n"
    b"User-Agent: curl/8.5.0\r\nAccept: */*\r\nAuthorization: Bearer abcdefghijklmnop\r\n"
    b"X-Request-Id: 9f0c6d1e\r\n"
    b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)
_POST = (
    b"POST /v1/a.b_c/ HTTP/1.1\r\nhost: h\r\ncontent-type: application/json; charset=utf-8\r\n"
    b"Content-Length: 17\r\nConnection: keep-alive, TE\r\nCookie: a=b; c=d\r\nTE: trailers"
)
_RESPONSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.24.0\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 27\r\nConnection: keep-alive\r\n"
    b'ETag: "5f-1"\r\nCache-Control: max-age=60\r\nSet-Cookie: a=b; Path=/'
)
SEEDS: dict[str, tuple[bytes, ...]] = {
    "request_head": (
        _REQUEST,
        _POST,
        b"OPTIONS /a HTTP/1.0\r\nConnection: close",
        b"GET / HTTP/1.1",
        b"PUT /~u/x,y=1 HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c",
    ),
    "request_line": (
        b"GET /api/orders/17?page=2&sort=name HTTP/1.1", b"DELETE / HTTP/1.0",
        b"M-SEARCH /a/b.c/ HTTP/1.3", b"OPTIONS * HTTP/1.1", b"GET http://h/a?b HTTP/1.1",
    ),
    "request_fields": (
        _REQUEST.partition(b"\r\n")[2],
        _POST.partition(b"\r\n")[2],
        b"Host: h\r\nContent-Type: application/grpc+proto\r\nTE: trailers\r\ngrpc-timeout: 1S",
        b"X_Client_Id: a\r\nX-Forwarded-For: 1.1.1.1\r\nHOST:a.example.\t\r\nA:b\r\nA: \t c\t ",
    ),
    "response_head": (
        _RESPONSE_HEAD,
        b"HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=5, max=100\r\nConnection: close",
        b"HTTP/1.0 301 Moved Permanently\r\nLocation: /b\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 404 \r\ndate:x\r\ntransfer-encoding: Chunked\r\nX-Request-Id: 1",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade",
        b"HTTP/1.1 200\r\nClear-Site-Data: *\r\nAlt-Svc: clear\r\nContent-Length: 007",
    ),
    "h2_request": (
        b":method=GET|:scheme=https|:authority=a.example:80|:path=/api/orders/17?page=2|accept=*/*"
        b"|user-agent=curl/8.5.0|authorization=Bearer abcdefghijklmnop|cookie=a=b|cookie=c=d",
        b":method=POST|:path=/p.S/M|:scheme=http|te=trailers|content-type=application/grpc+proto"
        b"|host=A.example|content-length=17|grpc-timeout=1S|x-request-id=9",
        b":method=GET|:path=/|host=a|:authority=A", b":method=OPTIONS|:path=*|:authority=",
        b":method=PUT|:authority=a|:path=/a|host=A|cookie=|x=|transfer-encoding=chunked",
    ),
    "h2_response": (
        b":status=200|server=nginx|date=Tue, 24 Nov 2026 12:00:00 GMT|content-length=27"
        b"|content-type=application/grpc|etag=W/1|set-cookie=a=b; Path=/|x-request-id=1",
        b":status=204|content-length=0|clear-site-data=*|alt-svc=clear", b":status=101|upgrade=a",
        b":status=404|connection=close|keep-alive=timeout=9|transfer-encoding=chunked|date=",
    ),
    "h2_lines": (
        _RESPONSE_HEAD.partition(b"\r\n")[2], b"", b"A:\t b \r\nTE: trailers\r\nX_TE: 1",
        b"a-very-long-name-of-a-field: \x80\xff\r\nproxy.connection: a\r\nUPGRADE: b\r\n",
    ),
    "bearer": (b"Bearer abc.def-ghi_jkl==", b"bearer   A", b"DPoP x", b"Basic YTpi"),
    "traceparent": (
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"00-00000000000000000000000000000001-0000000000000001-00",
        b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
    ),
    "access_line": (
        b"192.0.2.7|GET|/api/orders/17|orders|||orders|", b"::1|POST|/|_none|malformed|shop||",
        b"10.0.0.1|PUT|/a'b|r|client_closed|\xc3\xa9|u|HTTP/2.0", b"\0\0\0\1|G|/|r|||u|HTTP/1.0",
    ),
    "prefix": (
        b"/api|/api/orders|/|/api/orders/17", b"/a|/b|/ab/c", b"/a/b/c|/a//b/c/d", b"/|/a/b/",
        b"/a\xc3|/|/a\xc3/b", b"/a/b|/a/" + b"b" * 80,
    ),
    "digest": (b"", b"abc", b"a" * 55, b"a" * 64, b"a" * 119, b"a" * 200),
}  # fmt: skip
"""What mutations begin with."""
_PARTS = (
    b"\r\n", b"\r", b"\n", b":", b": ", b" ", b"\t", b",", b", ", b"\0", b"\x7f", b"\x80", b"\xff",
    b"/", b"//", b"/.", b"/..", b"?", b"#", b"%2e", b";", b"_", b"-", b".", b"0", b"1", b"9" * 18,
    b"-1", b"+1", b"close", b"Keep-Alive", b"upgrade", b"te", b"websocket", b"chunked", b"gzip",
    b"Host: b", b"Host:", b"Connection: close", b"Connection: x-a", b"Connection: Upgrade",
    b"Content-Length: 3", b"Content-Length: ", b"Transfer-Encoding: chunked", b"Upgrade: websocket",
    b"Expect: 100-continue", b"Max-Forwards: 3", b"X-Forwarded-For: 1.2.3.4", b"X-Client-Id: a",
    b"X_Client-Id: a", b"x.request.id: b", b"Cookie: gateway_session=a", b"Cookie: a=b",
    b"Set-Cookie: gateway_session=1", b"Set-Cookie: a", b"Keep-Alive: timeout=9", b"Date: x",
    b"X-HTTP-Method: PUT", b"Content-Type: application/grpc", b"Service-Worker-Allowed: /",
    b"|", b"=", b"|:path=/", b"|:method=GET", b"|:authority=a", b"|host=a", b"|cookie=a", b"|X=a",
    b"|:status=200", b"|content-length=1", b"|content-length=x", b"|date=", b"|:protocol=a",
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"GET", b"get", b"CONNECT", b"*", b"a" * 300, b"[::1]",
    b"h:80", b"h:", b"h.", b"A.B", b"Bearer ", b"=", b"00-", b"0" * 32, b"0" * 16, b"ff",
)  # fmt: skip


def mutations(reader: str, seed: int) -> Iterator[bytes]:
    """Mutated cases without end; the same for the same seed."""
    random = Random(seed)  # noqa: S311 - cases, no secret
    seeds = SEEDS[reader]
    while True:
        data = bytearray(random.choice(seeds))
        for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
            _mutate(data, random, seeds)
        yield bytes(data)


def _mutate(data: bytearray, random: Random, seeds: tuple[bytes, ...]) -> None:
    size = len(data)
    at = random.randrange(size + 1)
    kind = random.randrange(10)
    if kind == 0 and at < size:
        data[at] = random.randrange(256)
    elif kind >= 8 and at < size and data[at : at + 1].isalnum():
        data[at] = random.choice(b"0123456789abcdef")
    elif kind == 1:
        data[at:at] = random.choice(_PARTS)
    elif kind == 2:
        del data[at : at + random.randrange(1, 6)]
    elif kind == 3 and at < size:
        data[at] ^= 0x20  # the other case
    elif kind == 4:
        # A whole line more.
        line = data.find(b"\r\n", at)
        data[line if line >= 0 else size : line if line >= 0 else size] = b"\r\n" + random.choice(
            _PARTS
        )
    elif kind == 5:
        other = random.choice(seeds)
        start = random.randrange(len(other) + 1)
        data[at:at] = other[start : start + random.randrange(1, 40)]
    elif kind == 6:
        part = random.choice(_PARTS)
        data[at : at + len(part)] = part
    else:
        data[at:at] = data[at : at + random.randrange(1, 30)]


def compare(readers: Readers, name: str, *, cases: int, seed: int = 1) -> int:
    """Compare a number of mutated cases; returns how many of them the codec read."""
    check: Callable[[bytes], bool] = getattr(readers, name)
    made = mutations(name, seed)
    read = 0
    for _ in range(cases):
        case = next(made)
        try:
            read += check(case)
        except AssertionError:
            print(f"{name}: the codec differs from Python for {case!r}", file=sys.stderr)
            raise
    return read


def main() -> int:
    """Compare, and print how many cases the codec read."""
    parser = argparse.ArgumentParser("python -m fuzz.differential", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(SEEDS)}")
    parser.add_argument("--cases", type=int, default=100_000, help="for each reader")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.readers) - set(SEEDS):
        parser.error(f"no such reader: {', '.join(sorted(unknown))}")
    readers = Readers(load_codec())
    for name in options.readers or SEEDS:
        read = compare(readers, name, cases=options.cases, seed=options.seed)
        print(f"{name}: {options.cases:,} cases, {read:,} read by the codec, none different")
    return 0


if __name__ == "__main__":
    sys.exit(main())
