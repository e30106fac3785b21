"""What is fuzzed. Each target takes bytes and returns, or raises what is a defect.

A reader may refuse its input by the one error that it promises, and nothing else. What it
takes has to hold what the rest of the gateway relies on, which is asserted here.
"""

from __future__ import annotations

import asyncio
import subprocess
from ast import literal_eval
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import msgspec
from joserfc.jwk import ECKey

from fuzz import differential, h2_targets
from fuzz.transport import Transport
from gateway.app.build.listeners import client_limits
from gateway.config import Config, parse_config
from gateway.config.problems import ConfigError
from gateway.downstream.connections import ConnectionManager
from gateway.downstream.request import Request
from gateway.downstream.stream import ClientStream
from gateway.http.errors import BadRequestError, ProblemError, UpstreamProtocolError
from gateway.http.fields import Trailers
from gateway.http.h1_body import BodyFramingError, ChunkedBody
from gateway.http.h2 import is_available
from gateway.http.response_head import make_response_head, read_response_head
from gateway.http.target import parse_target
from gateway.metrics import Metrics
from gateway.oauth.authentication.presented import read_basic
from gateway.oauth.bearer import read_bearer
from gateway.oauth.errors import BearerError, OAuthError
from gateway.oauth.jose import JwtError, read_jwt, sign_jwt, verify_jwt
from gateway.oauth.parameters import read_form, read_json_object, split_scope
from gateway.proxy.mcp_message import NAMED_BY, McpRequestError, read_messages

Target = Callable[[bytes], None]
CASES = Path(__file__).parent / "cases"
CORPUS = Path(__file__).parent / "corpus"
"""Inputs that once reached new code, by target: a literal of bytes in each line."""
_IDENTITY = (b"x-client-id", b"x-client-name", b"x-token-scopes", b"x-token-subject")
_KEY, _OTHER = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")


class _Requests:
    """The requests of one connection, bodies and all, as they come out."""

    def __init__(self) -> None:
        self.seen: list[list[object]] = []

    def handle(self, stream: ClientStream, request: Request) -> None:
        """Answer when the body has come, if there is one."""
        refused = request.error is not None
        self.seen.append([request.method, request.target.path, refused, request.head.lines])
        if request.head.has_body and not refused:
            stream.read_body(_Body(stream, self.seen[-1]))
            return
        _finish(stream, closes=refused)


class _Body:
    def __init__(self, stream: ClientStream, seen: list[object]) -> None:
        self._stream, self._seen, self._body = stream, seen, b""

    def take(self, piece: bytes) -> None:
        """A piece."""
        self._body += piece

    def end_of_body(self, trailers: Trailers = ()) -> None:
        """All of it."""
        self._seen.append(self._body)
        _finish(self._stream)

    def body_failed(self, error: ProblemError) -> None:
        """It broke off."""
        self._seen.append("broken")
        _finish(self._stream, closes=True)


def _finish(stream: ClientStream, *, closes: bool = False) -> None:
    stream.respond(make_response_head(204, (), length=0), b"", closes=closes)
    stream.release()


def _split(data: bytes) -> Iterator[bytes]:
    """The same bytes in pieces, whose size the first byte tells."""
    size = data[0] % 16 + 1 if data else 1
    return (data[at : at + size] for at in range(0, len(data), size))


def connection(data: bytes) -> None:
    """A client's connection: heads and bodies come out the same wherever they are split."""

    async def read(pieces: Iterator[bytes]) -> list[list[object]]:
        requests, transport = _Requests(), Transport()
        server = ConnectionManager(
            requests.handle, limits=client_limits(Config()), metrics=Metrics()
        )
        client = server.make_connection()
        client.connection_made(cast(asyncio.BaseTransport, transport))
        for piece in pieces:
            if transport.is_over:
                break
            client.data_received(piece)
            while client.request is None and client._buffer and not transport.is_over:
                before = len(requests.seen)
                await asyncio.sleep(0)  # pipelined requests take turns
                if len(requests.seen) == before:
                    break
        client.connection_lost(None)
        return requests.seen

    async def both() -> tuple[list[list[object]], list[list[object]]]:
        return await read(iter([data])), await read(_split(data))

    whole, pieces = asyncio.run(both())
    assert whole == pieces, (whole, pieces)
    for _, _, refused, lines, *_ in whole:
        assert isinstance(lines, bytes)
        if not refused:
            _check_lines(lines)


def _check_lines(lines: bytes) -> None:
    assert lines == b"" or lines.endswith(b"\r\n")
    for line in lines.split(b"\r\n")[:-1]:
        name = line.partition(b":")[0].lower()
        assert name, "a line without a name would end the head for some"
        assert name.replace(b"_", b"-") not in _IDENTITY
        assert not {0, 10, 13} & set(line)


def target(data: bytes) -> None:
    """A request target: its canonical form is its own, and has no dots, doubles or controls."""
    try:
        read = parse_target(data.decode("latin-1"))
        readings = read.other_readings
    except BadRequestError:
        return
    assert read.path.startswith("/")
    assert not {"", ".", ".."} & set(read.path.strip("/").split("/")) or read.path == "/"
    again = parse_target(read.path + read.query)
    assert (again.path, again.query) == (read.path, read.query)
    assert all(reading.startswith("/") for reading in readings)


def chunks(data: bytes) -> None:
    """A chunked body: the same wherever it is split."""

    def read(pieces: Iterator[bytes]) -> tuple[bytes | None, bool]:
        body, content = ChunkedBody(), b""
        try:
            for piece in pieces:
                if body.is_complete:
                    break
                content += body.feed(piece)
                while body.has_more:
                    content += body.feed(b"")
        except BodyFramingError:
            return None, False
        return content, body.is_complete

    assert read(iter([data])) == read(_split(data))


def response(data: bytes) -> None:
    """The head of an upstream's response."""
    try:
        head = read_response_head(data)
    except UpstreamProtocolError:
        return
    assert 100 <= head.status <= 599
    _check_lines(head.lines)


def config(data: bytes) -> None:
    """A configuration file: sound, or refused with file, line and key."""
    try:
        parse_config(data.decode("utf-8", "replace"), file="fuzz.yaml", environ={})
    except ConfigError as error:
        assert error.problems
        assert all(problem.line >= 1 for problem in error.problems)


def basic(data: bytes) -> None:
    """Client credentials in an Authorization header."""
    try:
        read_basic([(b"authorization", data)])
    except OAuthError:
        pass
    try:
        read_bearer([data])
    except BearerError:
        pass


def parameters(data: bytes) -> None:
    """Forms, JSON objects and scopes."""
    for read in (read_form, read_json_object):
        try:
            read(data)
        except OAuthError:
            pass
    try:
        split_scope(data.decode("latin-1"))
    except OAuthError:
        pass


def jwt(data: bytes) -> None:
    """A JWT: nothing that is not signed by the key is ever taken."""
    token = data.decode("latin-1")
    for read in (read_jwt, lambda text: verify_jwt(text, [_KEY], ["ES256"])):
        try:
            read(token)
        except JwtError:
            continue
        assert read is read_jwt, "verified without the key"


def mcp(data: bytes) -> None:
    """A message for an MCP server: another reader finds the same method and name in it."""
    try:
        messages = read_messages(data)
    except McpRequestError:
        return
    try:
        decoded = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return  # half a surrogate pair, which only some take
    for message, other in zip(
        messages, decoded if isinstance(decoded, list) else [decoded], strict=True
    ):
        assert message.method == other.get("method", "")
        if message.name is not None:
            assert message.name == other["params"][NAMED_BY[message.method]]


TARGETS: dict[str, Target] = {
    each.__name__: each
    for each in (connection, target, chunks, response, config, basic, parameters, jwt, mcp)
}
if is_available():
    TARGETS["h2_connection"] = h2_targets.make_h2_connection(_check_lines)
    TARGETS["h2_upstream"] = h2_targets.make_h2_upstream(_check_lines)


def _codec_target(readers: differential.Readers, name: str) -> Target:
    """One reader of the native codec, beside that of Python."""
    check: Callable[[bytes], bool] = getattr(readers, name)

    def compare(data: bytes) -> None:
        check(data)

    return compare


try:
    _readers = differential.Readers(differential.load_codec())
except (OSError, subprocess.CalledProcessError):  # there is no compiler
    CODEC_TARGETS: dict[str, Target] = {}
else:
    CODEC_TARGETS = {f"codec_{name}": _codec_target(_readers, name) for name in differential.SEEDS}
TARGETS |= CODEC_TARGETS

_HEAD = b"GET /a?b HTTP/1.1\r\nHost: h\r\n"
SEEDS: dict[str, list[bytes]] = {
    "connection": [
        _HEAD + b"\r\n",
        _HEAD + b"Content-Length: 3\r\n\r\nabc" + _HEAD + b"\r\n",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n" + _HEAD,
        _HEAD + b"Connection: X, close\r\nX: 1\r\nX_Client_Id: 1\r\nExpect: 100-continue\r\n\r\n",
    ],
    "target": [b"/a/../b;x=1/%2e%2E//c?d=%2f", b"http://h:80/a", b"/a%252e%3b/\xc3"],
    "chunks": [b"3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"],
    "response": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X\r\nX: 1"],
    "config": [
        path.read_bytes() for path in sorted((CASES.parent.parent / "config").glob("*.yaml"))
    ],
    "basic": [b"Basic YTpi", b"Basic JTNBOiUzQQ==", b"Bearer abc"],
    "parameters": [b"grant_type=client_credentials&scope=a+b", b'{"client_id": "a"}', b"a b"],
    "jwt": [
        sign_jwt({"alg": "ES256", "typ": "at+jwt"}, {"iss": "i", "aud": ["a"]}, _OTHER).encode()
    ],
    "mcp": [
        b'{"id": 1, "method": "tools/call", "params": {"name": "a", "_meta": {}}}',
        b'[{"method": "resources/read", "params": {"uri": "x"}}, {"id": 1, "result": {}}]',
    ],
    **h2_targets.SEEDS,
    **{f"codec_{name}": list(seeds) for name, seeds in differential.SEEDS.items()},
}
"""Where a search begins."""
for _file in sorted(CORPUS.glob("*.txt")):
    if _file.stem in SEEDS:
        SEEDS[_file.stem] += [literal_eval(line) for line in _file.read_text().splitlines()]
