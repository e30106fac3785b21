"""Request smuggling: every class of RFC 9112 is refused, or forwarded in one unambiguous form.

Each case is sent as it stands, then once more for every byte at which the wire might split
it. Behind it comes a canary, a request of its own. Where the case is refused, nothing of it
and nothing of the canary reaches the upstream. Where it is forwarded, what a strict reader
makes of the upstream's bytes is the case and then the canary, each once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio
from support.deadlines import until
from support.running_gateway import RawClient, RunningGateway, make_config, start_gateway
from support.servers.recording_upstream import ParsedRequest, RecordingUpstream

CANARY = b"GET /public/canary HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
CANARY_READ = ParsedRequest(b"GET", b"/public/canary")
INNER = b"GET /public/inner HTTP/1.1\r\nHost: h\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """Bytes, and what becomes of them: a status, or the requests that the upstream gets."""

    name: str
    sent: bytes
    refused: int = 0
    """The only answer, after which the connection ends; 0 where it is forwarded."""
    forwarded: tuple[ParsedRequest, ...] = ()


def refuse(name: str, *lines: bytes, status: int = 400, body: bytes = b"") -> Case:
    """A request that is refused, given as lines without their ends."""
    return Case(name, b"\r\n".join(lines) + b"\r\n\r\n" + body, status)


def forward(name: str, *lines: bytes, body: bytes = b"", read: ParsedRequest) -> Case:
    """A request that passes, and how a strict reader of the upstream reads it."""
    return Case(name, b"\r\n".join(lines) + b"\r\n\r\n" + body, forwarded=(read,))


GET, POST, HOST = b"GET /public/a HTTP/1.1", b"POST /public/a HTTP/1.1", b"Host: h"
CHUNKED = b"Transfer-Encoding: chunked"
A = ParsedRequest(b"GET", b"/public/a")

LENGTH_AND_CHUNKS = [
    refuse("CL.TE", POST, HOST, b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\nG"),
    refuse("TE.CL", POST, HOST, CHUNKED, b"Content-Length: 4", body=b"5c\r\nG"),
    refuse("CL.TE with a length of 0", POST, HOST, b"Content-Length: 0", CHUNKED),
    refuse("CL.TE in lower case", POST, HOST, b"content-length: 6", b"transfer-encoding: chunked"),
    refuse("TE.TE, two codings", POST, HOST, CHUNKED, b"Transfer-Encoding: identity"),
    refuse("TE.TE, chunked twice", POST, HOST, CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    refuse("TE list", POST, HOST, b"Transfer-Encoding: chunked, chunked", status=501),
    refuse("TE with another coding before", POST, HOST, b"Transfer-Encoding: gzip, chunked",
           status=501),
    refuse("TE with another coding behind", POST, HOST, b"Transfer-Encoding: chunked, gzip",
           status=501),
    refuse("TE identity", POST, HOST, b"Transfer-Encoding: identity", status=501),
    refuse("TE empty", POST, HOST, b"Transfer-Encoding:", status=501),
    refuse("TE quoted", POST, HOST, b'Transfer-Encoding: "chunked"', status=501),
    refuse("TE with a parameter", POST, HOST, b"Transfer-Encoding: chunked;q=1", status=501),
    refuse("TE with a vertical tab", POST, HOST, b"Transfer-Encoding: \x0bchunked"),
    refuse("TE with a form feed", POST, HOST, b"Transfer-Encoding: chunked\x0c"),
    refuse("TE with a NUL", POST, HOST, b"Transfer-Encoding: chunked\x00"),
    refuse("TE with a space before the colon", POST, HOST, b"Transfer-Encoding : chunked"),
    refuse("TE with a tab before the colon", POST, HOST, b"Transfer-Encoding\t: chunked"),
    refuse("TE behind a leading space", POST, HOST, b" Transfer-Encoding: chunked"),
    refuse("TE in HTTP/1.0", b"POST /public/a HTTP/1.0", HOST, CHUNKED, body=b"0\r\n\r\n"),
    refuse("TE on a folded line", POST, HOST, b"Transfer-Encoding:\r\n chunked"),
    refuse("TE behind a bare LF", POST, HOST, b"X: y\nTransfer-Encoding: chunked"),
    refuse("TE behind a bare CR", POST, HOST, b"X: y\rTransfer-Encoding: chunked"),
    forward("TE in mixed case", POST, HOST, b"tRaNsFeR-eNcOdInG: ChUnKeD", body=b"0\r\n\r\n",
            read=ParsedRequest(b"POST", b"/public/a")),
    forward("TE_underscore is another field", GET, HOST, b"Transfer_Encoding: chunked", read=A),
    forward("TE.0, a chunked GET", GET, HOST, CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n"
            % (len(INNER), INNER), read=ParsedRequest(b"GET", b"/public/a", INNER)),
]  # fmt: skip

LENGTHS = [
    refuse("CL twice, the same", POST, HOST, b"Content-Length: 0", b"Content-Length: 0"),
    refuse("CL twice, different", POST, HOST, b"Content-Length: 0", b"Content-Length: 9"),
    refuse("CL list", POST, HOST, b"Content-Length: 0, 0"),
    refuse("CL empty", POST, HOST, b"Content-Length:"),
    refuse("CL negative", POST, HOST, b"Content-Length: -1"),
    refuse("CL with a plus", POST, HOST, b"Content-Length: +0"),
    refuse("CL in hexadecimal", POST, HOST, b"Content-Length: 0x0"),
    refuse("CL with a point", POST, HOST, b"Content-Length: 0.0"),
    refuse("CL with an exponent", POST, HOST, b"Content-Length: 0e1"),
    refuse("CL with an underscore", POST, HOST, b"Content-Length: 0_0"),
    refuse("CL with a space inside", POST, HOST, b"Content-Length: 0 0"),
    refuse("CL with other digits", POST, HOST, b"Content-Length: \xd9\xa0"),
    refuse("CL beyond 63 bits", POST, HOST, b"Content-Length: 18446744073709551616"),
    refuse("CL with a space before the colon", POST, HOST, b"Content-Length : 0"),
    refuse("CL with a comma", POST, HOST, b"Content-Length: 0,"),
    forward("CL with leading zeros", POST, HOST, b"Content-Length: 0002", body=b"ab",
            read=ParsedRequest(b"POST", b"/public/a", b"ab")),
    forward("CL.0, a GET with a body", GET, HOST, b"Content-Length: %d" % len(INNER), body=INNER,
            read=ParsedRequest(b"GET", b"/public/a", INNER)),
    forward("0.CL, a length within white space", POST, HOST, b"Content-Length: \t 2 ", body=b"ab",
            read=ParsedRequest(b"POST", b"/public/a", b"ab")),
    forward("content_length is another field", GET, HOST, b"Content_Length: 9", read=A),
]  # fmt: skip


def chunks(name: str, body: bytes, *, read: bytes | None = None) -> Case:
    """A chunked body, refused unless it is told how it is read."""
    sent = b"\r\n".join((POST, HOST, CHUNKED)) + b"\r\n\r\n" + body
    if read is None:
        return Case(name, sent, 400)
    return Case(name, sent, forwarded=(ParsedRequest(b"POST", b"/public/a", read),))


CHUNKS = [
    chunks("chunk extension is dropped", b"2;a=b\r\nab\r\n0\r\n\r\n", read=b"ab"),
    chunks("chunk extension that looks like a chunk", b"2;0\r\nab\r\n0;x\r\n\r\n", read=b"ab"),
    chunks("chunk size in capitals", b"A\r\n0123456789\r\n0\r\n\r\n", read=b"0123456789"),
    chunks("chunk size with leading zeros", b"0002\r\nab\r\n00\r\n\r\n", read=b"ab"),
    chunks("trailers are dropped", b"0\r\nContent-Length: 9\r\nX-Client-Id: x\r\n\r\n", read=b""),
    chunks("chunk extension behind a bare LF", b"2;a\nab\r\n0\r\n\r\n"),
    chunks("chunk extension with a bare CR", b"2;a\rb\r\nab\r\n0\r\n\r\n"),
    chunks("chunk size behind a bare LF", b"2\nab\r\n0\r\n\r\n"),
    chunks("chunk end with a bare LF", b"2\r\nab\n0\r\n\r\n"),
    chunks("chunk end missing", b"2\r\nab0\r\n\r\n"),
    chunks("chunk longer than its size", b"2\r\nabc\r\n0\r\n\r\n"),
    chunks("chunk size empty", b"\r\nab\r\n0\r\n\r\n"),
    chunks("chunk size negative", b"-2\r\nab\r\n0\r\n\r\n"),
    chunks("chunk size with a plus", b"+2\r\nab\r\n0\r\n\r\n"),
    chunks("chunk size with 0x", b"0x2\r\nab\r\n0\r\n\r\n"),
    chunks("chunk size with an underscore", b"0_2\r\nab\r\n0\r\n\r\n"),
    chunks("chunk size not hexadecimal", b"g\r\nab\r\n0\r\n\r\n"),
    chunks("chunk size with a space before", b" 2\r\nab\r\n0\r\n\r\n"),
    chunks("chunk size beyond 64 bits", b"10000000000000002\r\nab\r\n0\r\n\r\n"),
    chunks("trailer folded", b"0\r\nA: b\r\n c\r\n\r\n"),
    chunks("trailer with a space before the colon", b"0\r\nA : b\r\n\r\n"),
    chunks("trailer behind a bare LF", b"0\nA: b\r\n\r\n"),
    chunks("trailer that is a request line", b"0\r\nGET /public/inner HTTP/1.1\r\n\r\n"),
]

FIELDS = [
    refuse("obs-fold with a space", GET, HOST, b"X: a\r\n b"),
    refuse("obs-fold with a tab", GET, HOST, b"X: a\r\n\tb"),
    refuse("obs-fold as the first line", GET, b" X: a", HOST),
    refuse("bare LF ends a line", GET, b"Host: h\nX: a"),
    refuse("bare CR in a value", GET, HOST, b"X: a\rb"),
    refuse("CR CR LF", GET, HOST, b"X: a\r"),
    refuse("NUL in a value", GET, HOST, b"X: a\x00b"),
    refuse("NUL in a name", GET, HOST, b"X\x00: a"),
    refuse("DEL in a value", GET, HOST, b"X: a\x7f"),
    refuse("bell in a value", GET, HOST, b"X: a\x07"),
    refuse("empty name", GET, HOST, b": a"),
    refuse("no colon", GET, HOST, b"X"),
    refuse("space before the colon", GET, HOST, b"X : a"),
    refuse("space in a name", GET, HOST, b"X Y: a"),
    refuse("slash in a name", GET, HOST, b"X/Y: a"),
    refuse("brace in a name", GET, HOST, b"{X}: a"),
    refuse("at sign in a name", GET, HOST, b"X@: a"),
    refuse("letter beyond ASCII in a name", GET, HOST, b"X-\xc3\xa9: a"),
    forward("letter beyond ASCII in a value", GET, HOST, b"X: \xc3\xa9", read=A),
    forward("colon in a value", GET, HOST, b"X: a: b", read=A),
    forward("empty value", GET, HOST, b"X:", read=A),
]

HOSTS = [
    refuse("Host missing", GET),
    forward("Host empty", GET, b"Host:", read=A),
    refuse("Host twice, the same", GET, HOST, HOST),
    refuse("Host twice, different", GET, HOST, b"Host: other"),
    refuse("Host with a user", GET, b"Host: user@h"),
    refuse("Host with a path", GET, b"Host: h/public"),
    refuse("Host with a space", GET, b"Host: h other"),
    refuse("Host list", GET, b"Host: h, other"),
    refuse("Host with a bad port", GET, b"Host: h:http"),
    refuse("Host with a long port", GET, b"Host: h:8080800"),
    refuse("Host with an open bracket", GET, b"Host: [::1"),
    refuse("Host with a NUL", GET, b"Host: h\x00"),
    refuse("Host with a space before the colon", GET, b"Host : h"),
    forward("HTTP/1.0 without Host", b"GET /public/a HTTP/1.0", b"Connection: keep-alive", read=A),
]

TARGETS = [
    refuse("absolute-form, Host missing", b"GET http://h/public/a HTTP/1.1"),
    refuse("absolute-form, no authority", b"GET http:///public/a HTTP/1.1", HOST),
    refuse("absolute-form with a user", b"GET http://user@h/public/a HTTP/1.1", HOST),
    refuse("absolute-form of another scheme", b"GET ftp://h/public/a HTTP/1.1", HOST),
    refuse("authority-form", b"GET h:80 HTTP/1.1", HOST),
    refuse("CONNECT", b"CONNECT h:80 HTTP/1.1", HOST, status=501),
    refuse("CONNECT with a path", b"CONNECT /public/a HTTP/1.1", HOST, status=501),
    refuse("asterisk-form with GET", b"GET * HTTP/1.1", HOST),
    refuse("no slash", b"GET public/a HTTP/1.1", HOST),
    refuse("fragment", b"GET /public/a#/b HTTP/1.1", HOST),
    refuse("backslash", b"GET /public\\a HTTP/1.1", HOST),
    refuse("byte beyond ASCII", b"GET /public/\xe9 HTTP/1.1", HOST),
    refuse("NUL in the target", b"GET /public/\x00 HTTP/1.1", HOST),
    refuse("space in the target", b"GET /public/a b HTTP/1.1", HOST),
    refuse("tab in the target", b"GET /public/a\tb HTTP/1.1", HOST),
    forward("absolute-form", b"GET http://h/public/a HTTP/1.1", HOST, read=A),
    forward("absolute-form against Host", b"GET http://h/public/a HTTP/1.1", b"Host: evil", read=A),
    forward("double slash", b"GET //public//a HTTP/1.1", HOST, read=A),
    forward("query as it came", b"GET /public/a?b=//%2e%2f HTTP/1.1", HOST,
            read=ParsedRequest(b"GET", b"/public/a?b=//%2e%2f")),
]  # fmt: skip

LINES = [
    refuse("HTTP/0.9", b"GET /public/a"),
    refuse("HTTP/0.9 by name", b"GET /public/a HTTP/0.9", HOST),
    forward("HTTP/1.2, read as 1.1", b"GET /public/a HTTP/1.2", HOST, read=A),
    refuse("HTTP/2.0", b"GET /public/a HTTP/2.0", HOST),
    refuse("half of the preface of HTTP/2", b"PRI * HTTP/2.0", HOST),
    refuse("HTTP/1.10", b"GET /public/a HTTP/1.10", HOST),
    refuse("http in lower case", b"GET /public/a http/1.1", HOST),
    refuse("HTTP/1,1", b"GET /public/a HTTP/1,1", HOST),
    refuse("two spaces", b"GET  /public/a HTTP/1.1", HOST),
    refuse("tab between", b"GET\t/public/a HTTP/1.1", HOST),
    refuse("space behind", b"GET /public/a HTTP/1.1 ", HOST),
    refuse("space before", b" GET /public/a HTTP/1.1", HOST),
    refuse("bare LF", b"GET /public/a HTTP/1.1\nHost: h"),
    refuse("bare LF before", b"\nGET /public/a HTTP/1.1", HOST),
    refuse("NUL before", b"\x00GET /public/a HTTP/1.1", HOST),
    refuse("method that is no token", b"G(T /public/a HTTP/1.1", HOST),
    refuse("empty method", b" /public/a HTTP/1.1", HOST),
    refuse("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    forward("empty lines before", b"\r\n\r\nGET /public/a HTTP/1.1", HOST, read=A),
    refuse("method in lower case", b"get /public/a HTTP/1.1", HOST),
    refuse("method in mixed case", b"pOST /public/a HTTP/1.1", HOST),
    refuse("TRACE", b"TRACE /public/a HTTP/1.1", HOST, status=501),
    refuse("two hosts in one", GET, b"Host: a,b"),
    refuse("host with an escape", GET, b"Host: a%2eb"),
]  # fmt: skip

UPGRADES = [
    forward("early data after a refused upgrade", GET, HOST, b"Connection: Upgrade",
            b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: x", read=A),
    forward("h2c is not offered", GET, HOST, b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", read=A),
    forward("upgrade with a body is none", POST, HOST, b"Connection: Upgrade",
            b"Upgrade: websocket", b"Content-Length: 2", body=b"ab",
            read=ParsedRequest(b"POST", b"/public/a", b"ab")),
    forward("fields that Connection names end here", GET, HOST,
            b"Connection: Host, X-Forwarded-For, X-Secret", b"X-Secret: 1", read=A),
    refuse("Expect of something else", POST, HOST, b"Expect: 200-ok", status=417),
]  # fmt: skip

CASES = [*LENGTH_AND_CHUNKS, *LENGTHS, *CHUNKS, *FIELDS, *HOSTS, *TARGETS, *LINES, *UPGRADES]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorder() -> AsyncIterator[RecordingUpstream]:
    """The upstream of all cases; `exchange` has it forget."""
    async with RecordingUpstream() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    recorder: RecordingUpstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningGateway]:
    """The gateway of all cases: to start one takes as long as a case."""
    directory = tmp_path_factory.mktemp("gateway")
    async with aiohttp.ClientSession() as session:
        running = await start_gateway(directory, make_config(directory, recorder.url), session)
        yield running
        await running.stop()


async def exchange(
    gateway: RunningGateway, recorder: RecordingUpstream, *pieces: bytes
) -> tuple[list[int], list[ParsedRequest]]:
    """The statuses that the client sees, and the requests that the upstream sees."""
    recorder.forget()
    client = await gateway.connect()
    try:
        for piece in pieces:
            await client.send(piece)
            await _let_it_be_read(client)
        responses = await client.read_to_end()
    finally:
        await client.close()
        gateway.clients.remove(client)
    statuses = [int(part[:3]) for part in responses.split(b"HTTP/1.1 ")[1:]]
    return statuses, list(recorder.parsed)


async def _let_it_be_read(client: RawClient) -> None:
    # Loopback delivers within the call, so a turn of the loop is a read of the gateway's.
    for _ in range(2):
        await asyncio.sleep(0)


def expected(case: Case) -> tuple[list[int], list[ParsedRequest]]:
    """What `exchange` has to return."""
    if case.refused:
        return [case.refused], []
    return [200, 200], [*case.forwarded, CANARY_READ]


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bytes_are_unambiguous_or_rejected(
    gateway: RunningGateway, recorder: RecordingUpstream, case: Case
) -> None:
    left_open = gateway.gateway.connections  # by a case that failed
    stream = case.sent + CANARY
    assert await exchange(gateway, recorder, stream) == expected(case)
    assert recorder.rejected == []
    for at in range(1, len(case.sent) + 1):
        found = await exchange(gateway, recorder, stream[:at], stream[at:])
        assert found == expected(case), f"split after {stream[:at]!r}"
        assert recorder.rejected == []
    await until(lambda: gateway.gateway.connections <= left_open)
