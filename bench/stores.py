"""How fast tokens are found and issued in a full store: `python -m bench.stores [--tokens N]`.

Fills a SQLite file, a Redis and a PostgreSQL of its own, all new, by the store's own bulk import,
then times `get_token` for tokens drawn at random (one after another, many at once, and for tokens
that do not exist) and `add_token` (many at once). What is printed was measured on this machine, in
one run. With `--results bench/results/store.json` it is kept for performance.md.

The servers run as they come: SQLite commits a token so that it survives the process, PostgreSQL so
that it survives a power cut, and Redis keeps nothing on disk here.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import platform
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import uvloop

from bench.machine import read_commit
from bench.results import Calls, StoreFigures, StoreResults
from bench.store_servers import PostgresqlServer, RedisServer
from gateway.oauth.models import AccessToken, Client, digest_token
from gateway.store import open_store
from gateway.store.transfer import TransferableStore

Value = TypeVar("Value")

BATCH = 1000
CLIENTS = 1000
AT_ONCE = 32
LIFE_S = 86400.0


async def main() -> None:
    """Measure each store that can be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=5000, help="of each kind")
    parser.add_argument("--results", type=Path, help="file to write the figures to, JSON")
    options = parser.parse_args()
    print(f"{options.tokens:,} tokens of {CLIENTS:,} clients, Python {platform.python_version()}")
    found = []
    with tempfile.TemporaryDirectory() as name:
        async for figures in measure_each(Path(name), options.tokens, options.calls):
            print(describe(figures))
            found.append(figures)
    if options.results:
        date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
        results = StoreResults(date, read_commit(), options.tokens, AT_ONCE, tuple(found))
        options.results.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))


@dataclass(frozen=True, slots=True)
class Subject:
    """A store to measure."""

    name: str
    place: str
    """What a token takes bytes of, which `used_bytes` counts."""
    url: str
    used_bytes: Callable[[], int]


async def measure_each(directory: Path, tokens: int, calls: int) -> AsyncIterator[StoreFigures]:
    """Measure the stores, one after another."""
    path = directory / "store.db"
    sqlite = Subject("SQLite", "file", f"sqlite:///{path}", lambda: path.stat().st_size)
    yield await measure(sqlite, tokens, calls)
    with RedisServer(directory) as redis:
        yield await measure(Subject("Redis", "memory", redis.url, redis.used_bytes), tokens, calls)
    with PostgresqlServer() as server:
        yield await measure(
            Subject("PostgreSQL", "table and indexes", server.url, server.used_bytes), tokens, calls
        )


async def measure(subject: Subject, tokens: int, calls: int) -> StoreFigures:
    """Fill one store, look up in it, and add to it."""
    store = await open_store(subject.url)
    try:
        fill_s = await fill(store, tokens)
        drawn = [digest_token(str(random.randrange(tokens))) for _ in range(calls)]  # noqa: S311
        unknown = (digest_token(f"unknown-{number}") for number in range(calls))
        await look_up(store, drawn[: calls // 10], AT_ONCE)  # connections, caches
        lookup = await look_up(store, drawn, 1)
        lookup_at_once = await look_up(store, drawn, AT_ONCE)
        lookup_unknown = await look_up(store, unknown, 1, exists=False)
        issued = await issue(store, calls, AT_ONCE)
    finally:
        await store.close()
    return StoreFigures(
        subject.name,
        subject.place,
        round(subject.used_bytes() / (tokens + calls)),
        tokens / fill_s,
        lookup,
        lookup_at_once,
        lookup_unknown,
        issued,
    )


async def fill(store: TransferableStore, tokens: int) -> float:
    """Seconds that it takes to import so many tokens."""
    now = time.time()
    await store.content.import_clients(
        [Client(f"client-{n}", f"Client {n}", "hash", ("read",), now, None, 1)
         for n in range(CLIENTS)]
    )  # fmt: skip
    started = time.perf_counter()
    for first in range(0, tokens, BATCH):
        last = min(first + BATCH, tokens)
        await store.content.import_tokens([token(str(n), n, now) for n in range(first, last)])
    return time.perf_counter() - started


def token(text: str, number: int, now: float) -> AccessToken:
    """A token of one of the clients."""
    client_id = f"client-{number % CLIENTS}"
    return AccessToken(digest_token(text), client_id, "", ("read",), now, now + LIFE_S)


async def look_up(
    store: TransferableStore, digests: Iterable[bytes], at_once: int, *, exists: bool = True
) -> Calls:
    """Look up each token."""

    async def call(digest: bytes) -> None:
        assert (await store.tokens.get_token(digest) is not None) == exists

    return await time_calls(call, digests, at_once)


async def issue(store: TransferableStore, calls: int, at_once: int) -> Calls:
    """Add tokens that are new, as `/token` does."""
    now = time.time()
    new = [token(f"new-{number}", number, now) for number in range(calls)]

    async def call(one: AccessToken) -> None:
        await store.tokens.add_token(one, generation=1)

    return await time_calls(call, new, at_once)


async def time_calls(
    call: Callable[[Value], Awaitable[None]], values: Iterable[Value], at_once: int
) -> Calls:
    """Make a call for each value, so many at once."""
    waiting = iter(values)
    seconds: list[float] = []

    async def work() -> None:
        for value in waiting:
            started = time.perf_counter()
            await call(value)
            seconds.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    per_s = len(seconds) / (time.perf_counter() - started)
    percentiles = statistics.quantiles(seconds, n=100)
    return Calls(per_s, percentiles[49] * 1e6, percentiles[98] * 1e6)


def describe(figures: StoreFigures) -> str:
    """The figures as lines of text."""
    kinds = {
        "one after another": figures.lookup,
        f"{AT_ONCE} at once": figures.lookup_at_once,
        "unknown tokens": figures.lookup_unknown,
        f"issued, {AT_ONCE} at once": figures.issue,
    }
    lines = [
        f"  {kind + ':':<22} median {calls.p50_us:,.0f} us, p99 {calls.p99_us:,.0f} us,"
        f" {calls.per_s:,.0f}/s"
        for kind, calls in kinds.items()
        if calls is not None
    ]
    filled = f"  filled with {figures.filled_per_s:,.0f} tokens/s"
    size = f"  {figures.place}: {figures.bytes_per_token:,} bytes a token"
    return "\n".join((f"\n{figures.name}", filled, size, *lines))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
