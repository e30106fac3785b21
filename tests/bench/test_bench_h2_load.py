"""The load generator of HTTP/2: what it sends is what was meant, and what is wrong is an error."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from hpack import Decoder
from support.tiers import slow

from bench.constant_rate import COMPILER, INSTALL
from bench.cores import available_cpus
from bench.credentials import Credentials
from bench.h2_load import H2Load, H2Run, Shape, write_h2_requests
from bench.measures.h2 import KINDS, MESSAGE, write_kind
from bench.processes import BenchError

Fields = list[tuple[str, str]]


def read_blocks(path: Path) -> tuple[list[bytes], bytes]:
    """The header blocks of a file, in the order in which they are sent, and the body."""
    data, parts = path.read_bytes(), []
    for _ in range(2):
        size = int.from_bytes(data[:4])
        parts.append(data[4 : 4 + size])
        data = data[4 + size :]
    first, body = parts
    count, data = int.from_bytes(data[:4]), data[4:]
    blocks = [first]
    for _ in range(count):
        size = int.from_bytes(data[:4])
        blocks.append(data[4 : 4 + size])
        data = data[4 + size :]
    assert not data
    return blocks, body


def test_requests_are_what_hpack_reads_from_them(tmp_path: Path) -> None:
    constant: Fields = [(":method", "GET"), ("user-agent", "bench/1.0"), (":scheme", "http")]
    varied: list[Fields] = [[(":path", f"/{one}"), ("x-id", "n" * one)] for one in range(200)]
    blocks, body = read_blocks(write_h2_requests(tmp_path / "requests", constant, varied, b"b"))
    decoder = Decoder()
    read = [[(str(name), str(value)) for name, value in decoder.decode(one)] for one in blocks]
    assert body == b"b"
    assert [sorted(one) for one in read] == [
        sorted([*constant, *fields]) for fields in (varied[0], *varied)
    ]
    for fields in read:  # pseudo-fields first
        names = [name for name, _ in fields]
        assert names == sorted(names, key=lambda name: not name.startswith(":"))


@pytest.mark.parametrize("kind", KINDS)
def test_heads_of_a_kind_vary_or_not(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tokens").write_text("".join(f"token-{one}\n" for one in range(60)))
    credentials = Credentials("token", tmp_path / "tokens")
    blocks, body = read_blocks(write_kind(tmp_path / kind, kind, credentials))
    decoder = Decoder()
    heads = [{str(name): str(value) for name, value in decoder.decode(block)} for block in blocks]
    assert body == (MESSAGE if kind.startswith("grpc") else b"")
    assert len({head["authorization"] for head in heads}) == (50 if "varied" in kind else 1)
    if "varied" in kind:
        assert len({head["traceparent"] for head in heads}) == len(heads) - 1


@asynccontextmanager
async def server(*, status: str, ends_at_once: bool = False) -> AsyncIterator[int]:
    """Responds to each request; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        core = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        core.initiate_connection()
        while data := await reader.read(65536):
            for event in core.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    head = [(":status", status)]
                    core.send_headers(event.stream_id, head, end_stream=ends_at_once)
                    if not ends_at_once:
                        core.send_data(event.stream_id, b"ok", end_stream=True)
            writer.write(core.data_to_send())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as one:
        yield one.sockets[0].getsockname()[1]


async def load(directory: Path, port: int, body: bytes = b"") -> H2Run:
    requests = write_h2_requests(
        directory / "requests", [(":method", "POST"), (":scheme", "http"), (":path", "/"),
                                 (":authority", "h")], [], body,
    )  # fmt: skip
    program = H2Load.build(directory, available_cpus())
    return await asyncio.to_thread(program.run, port, Shape(2, 3), requests, seconds=0.2)


needs_compiler = pytest.mark.skipif(
    not shutil.which(COMPILER), reason=f"there is no C compiler; get one by: {INSTALL}"
)


@slow("bench")
@needs_compiler
@pytest.mark.parametrize(
    ("status", "ends_at_once", "body", "is_good"),
    [
        ("200", False, b"", True),
        ("200", True, b"", True),
        ("200", False, b"message", True),
        # What a gRPC error looks like.
        ("200", True, b"message", False),
        ("404", False, b"", False),
    ],
)
async def test_each_response_is_counted_as_good_or_not(
    tmp_path: Path, status: str, ends_at_once: bool, body: bytes, is_good: bool
) -> None:
    async with server(status=status, ends_at_once=ends_at_once) as port:
        seen = await load(tmp_path, port, body)
    assert seen.requests > 0
    assert seen.errors == (0 if is_good else seen.requests)
    assert seen.open == 6


@slow("bench")
@needs_compiler
async def test_server_that_hangs_up_is_reported(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as one:
        with pytest.raises(BenchError, match="closed a connection"):
            await load(tmp_path, one.sockets[0].getsockname()[1])
