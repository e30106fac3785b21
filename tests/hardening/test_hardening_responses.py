"""Upstreams that lie: a client sees one whole response, a clean 502 or a cut connection.

Each response is sent as it stands, then once more for every byte at which it may be split. What
the client sees is read by h11. The next request, on the same client connection where that
is kept, always gets its own response, never what the upstream had said too much.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import h11
import pytest
import pytest_asyncio
from support.deadlines import within
from support.protocols import PROTOCOLS, both_protocols
from support.running_gateway import RawClient, RunningGateway, make_config, start_gateway
from support.servers.raw_upstream import OK, Conversation, RawUpstream

pytestmark = both_protocols

REQUEST = b"%b /public/%b HTTP/1.1\r\nHost: h\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
CUT = -1
"""The connection was cut in the body: the response can't be taken for a whole one."""


@dataclass(frozen=True)
class Lie:
    """What the upstream sends before it hangs up, and what the client sees of it."""

    name: str
    sent: bytes
    status: int = 502
    body: bytes | None = None
    method: bytes = b"GET"
    or_cut: int = 0
    """What the client sees instead where the head came in an earlier read than the fault."""
    stays: bool = False
    """Whether the upstream keeps its connection open, for what never ends by itself."""


OK_HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

LIES = [
    Lie("length too long, then closed", OK_HEAD + b"Content-Length: 9\r\n\r\nab", CUT),
    Lie("length too short", OK_HEAD + b"Content-Length: 2\r\n\r\nabEVIL", 200, b"ab"),
    Lie("two responses", OK + EVIL, 200, b"ok"),
    Lie("two responses, chunked first", CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + EVIL, 200, b"ok"),
    Lie("answer behind a 204", b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL, 204, b""),
    Lie("204 with a length", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", 204, b""),
    Lie("304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", 304, b""),
    Lie("HEAD with a body", EVIL, 200, b"", method=b"HEAD"),
    Lie("HEAD with chunks", CHUNKED + b"4\r\nevil\r\n0\r\n\r\n", 200, b"", method=b"HEAD"),
    Lie("length twice, the same", OK_HEAD + 2 * b"Content-Length: 2\r\n" + b"\r\nok", 200, b"ok"),
    Lie("length twice", OK_HEAD + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\nok"),
    Lie("length list", OK_HEAD + b"Content-Length: 2, 2\r\n\r\nok", 200, b"ok"),
    Lie("length negative", OK_HEAD + b"Content-Length: -2\r\n\r\nok"),
    Lie("length with a plus", OK_HEAD + b"Content-Length: +2\r\n\r\nok"),
    Lie("length empty", OK_HEAD + b"Content-Length:\r\n\r\nok"),
    Lie("length and chunks", OK_HEAD + b"Content-Length: 2\r\n" + CHUNKED[17:] + b"0\r\n\r\n"),
    Lie("chunks and length", CHUNKED[:-2] + b"Content-Length: 2\r\n\r\n0\r\n\r\n"),
    Lie("unknown coding", OK_HEAD + b"Transfer-Encoding: gzip\r\n\r\nok"),
    Lie("coding list", OK_HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    Lie("chunks in HTTP/1.0", b"HTTP/1.0" + CHUNKED[8:] + b"0\r\n\r\n"),
    Lie("chunk size nonsense", CHUNKED + b"zz\r\n", or_cut=CUT),
    Lie("chunk too long", CHUNKED + b"2\r\nabc\r\n0\r\n\r\n", or_cut=CUT),
    Lie("chunk ends with a bare LF", CHUNKED + b"2\r\nok\n0\r\n\r\n", or_cut=CUT),
    Lie("chunk size in minus", CHUNKED + b"-1\r\n\r\n", or_cut=CUT),
    Lie("chunks broken off", CHUNKED + b"2\r\nok\r\n", CUT),
    Lie("last chunk broken off", CHUNKED + b"2\r\nok\r\n0\r\n", CUT),
    Lie("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    Lie("another version", b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    Lie("status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok"),
    Lie("status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"),
    Lie("status below 100", b"HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok"),
    Lie("status above 599", b"HTTP/1.1 600 High\r\nContent-Length: 2\r\n\r\nok"),
    Lie("reason with a control character", b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok"),
    Lie("head with bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    Lie("folded field", OK_HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
    Lie("space before the colon", OK_HEAD + b"Content-Length : 2\r\n\r\nok"),
    Lie("no colon", OK_HEAD + b"nonsense\r\nContent-Length: 2\r\n\r\nok"),
    Lie("NUL in a value", OK_HEAD + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok"),
    Lie("bare CR in a value", OK_HEAD + b"X: a\rSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok"),
    Lie("head broken off", OK_HEAD + b"Content-Le"),
    Lie("nothing at all", b""),
    Lie("unexpected 101",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    Lie("interim responses without end", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40, stays=True),
    Lie("interim response without end",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 40, stays=True),
    Lie("head without end", OK_HEAD + b"X-%b: 1\r\n" % (b"x" * 70_000), stays=True),
    Lie("to the end of the connection", OK_HEAD + b"\r\nok", 200, b"ok"),
    Lie("HTTP/1.0 to the end of the connection", b"HTTP/1.0 200 OK\r\n\r\nok", 200, b"ok"),
    Lie("no reason phrase", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    Lie("interim, then a response", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, 200,
        b"ok"),
]  # fmt: skip
MAX_SPLIT_BYTES = 200
"""Answers longer than this repeat themselves: they are split only so far."""


@dataclass
class Seen:
    """A response as h11 reads it."""

    status: int
    body: bytes


async def read_by_h11(client: RawClient, method: bytes) -> Seen:
    """The final response, `CUT` for its status where it broke off."""
    evaluate = h11.Connection(h11.CLIENT)
    evaluate.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    evaluate.send(h11.EndOfMessage())
    seen = Seen(CUT, b"")
    async with within():
        while True:
            event = evaluate.next_event()
            if event is h11.NEED_DATA:
                data = await _read(client)
                if not data and not _ends_by_closing(evaluate):
                    return Seen(CUT, b"")
                evaluate.receive_data(data)
            elif isinstance(event, h11.Response):
                seen.status = event.status_code
            elif isinstance(event, h11.Data):
                seen.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert evaluate.trailing_data[0] == b"", "more than one response"
                return seen


async def _read(client: RawClient) -> bytes:
    try:
        return await client.reader.read(65536)
    except ConnectionError:
        return b""


def _ends_by_closing(evaluate: h11.Connection) -> bool:
    # The gateway frames every response to HTTP/1.1, so the end of a connection ends none.
    return evaluate.their_state is h11.DONE


async def fetch(client: RawClient, method: bytes = b"GET", path: bytes = b"a") -> Seen:
    """Send a request, and read its response."""
    await client.send(REQUEST % (method, path))
    return await read_by_h11(client, method)


def pieces_of(lie: Lie, client_protocol: str) -> list[tuple[bytes, ...]]:
    """The response whole, and split at every byte; at fewer for a client of HTTP/2, since that is
    nothing to who reads the response."""
    step = 7 if client_protocol == "h2" else 1
    borders = range(1, min(len(lie.sent), MAX_SPLIT_BYTES), step)
    return [(lie.sent,), *((lie.sent[:at], lie.sent[at:]) for at in borders)]


def test_lies_have_names_of_their_own() -> None:
    assert len({lie.name for lie in LIES}) == len(LIES)


class PiecewiseLiar:
    """The script of an upstream that sends a lie in pieces, and to `/public/next` the truth."""

    def __init__(self) -> None:
        self.pieces: tuple[bytes, ...] = ()
        self.stays = False

    async def __call__(self, conversation: Conversation, _: RawUpstream) -> None:
        while (received := await conversation.read_head()) is not None:
            if received.request_line.split()[1] == b"/public/next":
                await conversation.send(OK)
                continue
            for piece in self.pieces:
                await conversation.send(piece)
                for _turn in range(2):  # loopback delivers at once: let it be read by itself
                    await asyncio.sleep(0)
            if self.stays:
                await conversation.reader.read()
            return


@pytest.fixture(scope="module")
def liar() -> PiecewiseLiar:
    return PiecewiseLiar()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(
    liar: PiecewiseLiar, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, RunningGateway]]:
    """The gateways of all cases, by what their clients speak: to start one takes as long as a
    case."""
    async with aiohttp.ClientSession() as session, RawUpstream(script=liar) as upstream:
        running = {}
        for protocol in PROTOCOLS:
            directory = tmp_path_factory.mktemp("gateway")
            text = make_config(directory, upstream.url)
            running[protocol] = await start_gateway(directory, text, session, protocol)
        yield running
        for gateway in running.values():
            await gateway.stop()


@pytest.mark.usefixtures("upstream_protocol")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
async def test_client_sees_one_whole_response_or_none(
    gateways: dict[str, RunningGateway], liar: PiecewiseLiar, lie: Lie, client_protocol: str
) -> None:
    gateway, liar.stays = gateways[client_protocol], lie.stays
    for liar.pieces in pieces_of(lie, client_protocol):
        try:
            await one_whole_response_or_none(gateway, lie, is_split=len(liar.pieces) > 1)
        except AssertionError as error:
            error.add_note(f"sent as {liar.pieces}")
            raise
        finally:
            await gateway.close_clients()


async def one_whole_response_or_none(gateway: RunningGateway, lie: Lie, *, is_split: bool) -> None:
    client = await gateway.connect()
    seen = await fetch(client, lie.method)
    allowed = {lie.status, lie.or_cut} if lie.or_cut and is_split else {lie.status}
    assert seen.status in allowed
    if lie.body is not None:
        assert seen.body == lie.body
    await the_next_response_is_its_own(gateway, client)


async def the_next_response_is_its_own(gateway: RunningGateway, client: RawClient) -> None:
    """On the same connection where it is kept, else on another."""
    try:
        seen = await fetch(client, path=b"next")
    except ConnectionError:
        seen = Seen(CUT, b"")
    if seen.status == CUT:
        other = await gateway.connect()
        seen = await fetch(other, path=b"next")
        await other.close()
    assert seen == Seen(200, b"ok")
