"""Documents of other hosts are read to their end, in whatever pieces they come, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import client_exceptions
from joserfc.jwk import Key
from support.jose_values import jwks, make_key
from support.running_gateway import StartGateway
from support.servers.raw_upstream import RawUpstream, close_server

from gateway.app import json_client
from gateway.app.json_client import MAX_BYTES, JsonClient
from gateway.oauth.issuer_metadata import FetchError
from gateway.oauth.jose import sign_jwt

ISSUER = "https://login.partner.example"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def host(pieces: Sequence[bytes], *, pause_s: float = 0.005) -> AsyncIterator[str]:
    """Responds to each request with these writes, and a pause after each."""

    conversations: list[asyncio.Task[None]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(asyncio.ensure_future(converse(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await close_server(server)
        await asyncio.gather(*conversations)


def make_jwt(key: Key) -> str:
    now = int(time.time())
    said = {"iss": ISSUER, "aud": "https://api.example", "sub": "a", "client_id": "shop",
            "iat": now, "exp": now + 600}  # fmt: skip
    return sign_jwt({"alg": "ES256", "kid": key.kid, "typ": "at+jwt"}, said, key)


def partner(jwks_uri: str) -> list[dict[str, object]]:
    issuer = {"name": "partner", "issuer": ISSUER, "jwks_uri": jwks_uri}
    return [{**issuer, "audience": ["https://api.example"]}]


async def fetch(url: str) -> object:
    fetcher = JsonClient()
    try:
        return await fetcher.get(url)
    finally:
        await fetcher.close()


def framed(document: bytes, framing: str) -> list[bytes]:
    """The response in many small pieces."""
    size = max(1, len(document) // 7)
    parts = [document[at : at + size] for at in range(0, len(document), size)]
    if framing == "length":
        return [OK + b"Content-Length: %d\r\n\r\n" % len(document), *parts]
    if framing == "chunked":
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
        return [OK + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n", b"\r\n"]
    return [OK + b"Connection: close\r\n\r\n", *parts]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("size", [20, 300_000, MAX_BYTES])
async def test_document_is_read_to_its_end_in_whatever_pieces_it_comes(
    framing: str, size: int
) -> None:
    document = json.dumps({"a": "x" * (size - 9)}).encode()
    assert len(document) == size
    async with host(framed(document, framing)) as url:
        assert await fetch(url) == json.loads(document)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_document_above_the_limit_is_refused(framing: str) -> None:
    document = json.dumps({"a": "x" * (MAX_BYTES - 8)}).encode()
    async with host(framed(document, framing)) as url:
        with pytest.raises(FetchError, match="larger than 512 KiB"):
            await fetch(url)


@pytest.mark.parametrize(
    ("body", "problem"),
    [(b"{", "not JSON"), (b'"\xff"', "UnicodeDecodeError|not JSON"), (b"[" * 100_000, "Recursion"),
     (b"", "not JSON")],
)  # fmt: skip
async def test_what_is_no_json_is_one_kind_of_error(body: bytes, problem: str) -> None:
    async with host([OK + b"Content-Length: %d\r\n\r\n" % len(body) + body]) as url:
        with pytest.raises(FetchError, match=problem):
            await fetch(url)


@pytest.mark.parametrize(
    "url",
    ["http://a..b/", f"http://{'a' * 70}.example/", "http://[::1/", "ftp://a/", "http://\u2028/"],
)
async def test_url_that_leads_nowhere_is_the_same_kind_of_error(url: str) -> None:
    with pytest.raises(FetchError):
        await fetch(url)


def test_every_error_of_the_client_library_is_expected() -> None:
    expected = (aiohttp.ClientError, *json_client._ERRORS)
    defined = [
        kind
        for _, kind in inspect.getmembers(client_exceptions, inspect.isclass)
        if issubclass(kind, Exception)
        and kind.__module__ == client_exceptions.__name__
        and not kind.__name__.startswith("WS")  # of WebSockets
    ]
    assert len(defined) > 10
    assert [kind for kind in defined if not issubclass(kind, expected)] == []


async def test_response_that_the_parser_refuses_is_the_same_kind_of_error() -> None:
    for head in (b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"", OK):
        async with host([head]) as url:
            with pytest.raises(FetchError):
                await fetch(url)


async def test_token_is_validated_by_keys_that_come_in_segments(
    start: StartGateway, upstream: RawUpstream
) -> None:
    key = make_key()
    async with host(framed(json.dumps(jwks(key)).encode(), "length")) as url:
        gateway = await start(
            upstream.url,
            jwt_issuers=partner(url),
        )
        headers = {"Authorization": f"Bearer {make_jwt(key)}"}
        async with gateway.session.get(gateway.url("/api"), headers=headers) as response:
            assert response.status == 200


async def test_issuer_that_is_unavailable_is_named_in_the_response_and_the_error_in_the_log(
    start: StartGateway, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    async with host([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]) as url:
        gateway = await start(
            upstream.url,
            jwt_issuers=partner(f"{url}/jwks"),
        )
        headers = {"Authorization": f"Bearer {make_jwt(make_key())}"}
        async with gateway.session.get(gateway.url("/api"), headers=headers) as response:
            problem = await response.json()
    assert (response.status, problem["reason"]) == (503, "issuer_unavailable")
    assert "JWKS endpoint of issuer partner" in problem["detail"]
    assert f"failed to fetch {url}/jwks: status 404" in caplog.text
    assert await gateway.metric("gateway_auth_decisions_total", result="issuer_unavailable") == 1
