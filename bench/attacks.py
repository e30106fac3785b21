"""Attacks on a gateway of its own, on loopback: what they cost honest requests, and memory.

    python -m bench.attacks                      # all of them, three rounds each
    python -m bench.attacks --only slow_heads --rounds 5

Each round measures honest requests on connections of their own, first alone, then beside the
attack, which a process of its own makes. Read the ratios: the times say more about the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

HONEST_CALLERS = 4
PACE_S = 0.005
CAP = 2000
LARGE_BYTES = 64 * 1024 * 1024
PIECE = b"x" * 16384
CONFIG = """\
listen:
  host: 127.0.0.1
  port: {port}
  max_connections: {cap}
  timeouts: {{head: 2s, body: 2s}}
admin: {{host: 127.0.0.1, port: {admin}}}
store: sqlite:///{directory}/gateway.db
trusted_proxies: [127.0.0.0/8]
access_log: {{path: "{directory}/access.log"}}
provider:
  issuer: http://127.0.0.1:{port}
  registration: {{mode: token, token: bench-registration}}
upstreams:
  attacked: {{targets: ["http://127.0.0.1:{attacked}"]}}
  calm: {{targets: ["http://127.0.0.1:{calm}"]}}
routes:
  - {{name: open, match: {{path: /open}}, upstream: attacked, auth: none}}
  - {{name: api, match: {{path: /api}}, upstream: calm}}
"""
GET = b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n"


# The attacks: each goes on until it is ended, and counts what it did.


@dataclass
class Attack:
    """One attacker's process."""

    port: int
    done: int = 0
    number: int = 0

    async def connect(self, *, takes: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection, from one of many addresses, so that ports don't run out. The kernel takes
        some `takes` bytes ahead for it, if that is given."""
        self.number += 1
        address = f"127.0.{1 + self.number // 200 % 50}.{1 + self.number % 200}"
        own = socket.socket()
        own.setblocking(False)
        if takes:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
        own.bind((address, 0))
        await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=own)

    async def many(self, count: int, work: Callable[[], Awaitable[None]]) -> None:
        """So many at once, each again and again."""

        async def again() -> None:
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await work()
                await asyncio.sleep(0.001)

        await asyncio.gather(*(again() for _ in range(count)))

    async def _drip(self, beginning: bytes) -> None:
        reader, writer = await self.connect()
        self.done += 1
        try:
            writer.write(beginning)
            while not reader.at_eof():
                writer.write(b"x")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1000), 1.0)
        finally:
            writer.transport.abort()

    async def slow_heads(self) -> None:
        """1000 heads, a byte a second."""
        await self.many(1000, lambda: self._drip(b"GET /open HTTP/1.1\r\nHost: h\r\nX: "))

    async def slow_bodies(self) -> None:
        """200 bodies, a byte a second."""
        head = b"POST /open HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"
        await self.many(200, lambda: self._drip(head))

    async def slow_readers(self) -> None:
        """200 clients that ask for 64 MiB each and take nothing."""

        async def stare() -> None:
            _, writer = await self.connect(takes=8192)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            self.done += 1
            try:
                writer.write(GET % b"open/large")
                await asyncio.sleep(3)
            finally:
                writer.transport.abort()

        await self.many(200, stare)

    async def pipelines(self) -> None:
        """50 clients that send requests without end and read nothing."""

        async def pour() -> None:
            _, writer = await self.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            self.done += 1
            try:
                for _ in range(100):
                    writer.write(GET % b"open/flood" * 1000)
                    await asyncio.wait_for(writer.drain(), 3)
            except TimeoutError:
                pass
            finally:
                writer.transport.abort()

        await self.many(50, pour)

    async def endless_heads(self) -> None:
        """50 heads at a time that never end, as fast as they are taken."""

        async def pour() -> None:
            reader, writer = await self.connect()
            self.done += 1
            try:
                writer.write(b"GET /open HTTP/1.1\r\nHost: h\r\n")
                for number in range(1000):
                    writer.write(b"X-%d: %b\r\n" % (number, b"x" * 1000))
                    await writer.drain()
                await reader.read()
            finally:
                writer.transport.abort()

        await self.many(50, pour)

    async def attempts_at_the_cap(self) -> None:
        """All connections that there may be, held; and attempts beyond, up to 100 000."""
        held = [await self.connect() for _ in range(CAP)]

        async def attempt() -> None:
            if self.done >= 100_000:
                await asyncio.sleep(60)
            self.done += 1
            reader, writer = await self.connect()
            try:
                await reader.read()
            finally:
                writer.transport.abort()

        await self.many(50, attempt)
        assert held

    async def unknown_tokens(self) -> None:
        """20 callers with tokens that they make up."""

        async def guess() -> None:
            reader, writer = await self.connect()
            try:
                for _ in range(1000):
                    self.done += 1
                    writer.write(
                        b"GET /api HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n\r\n"
                        % os.urandom(24).hex().encode()
                    )
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(_length(head))
            finally:
                writer.transport.abort()

        await self.many(20, guess)

    async def wrong_secrets(self) -> None:
        """20 callers that guess secrets, each guess from another client and address."""

        async def guess() -> None:
            reader, writer = await self.connect()
            try:
                for _ in range(1000):
                    self.done += 1
                    body = b"grant_type=client_credentials&client_id=c%d&client_secret=%d" % (
                        self.done, self.done,
                    )  # fmt: skip
                    writer.write(
                        b"POST /token HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 198.51.%d.%d\r\n"
                        b"Content-Type: application/x-www-form-urlencoded\r\n"
                        b"Content-Length: %d\r\n\r\n%b"
                        % (self.done // 250 % 250, self.done % 250, len(body), body)
                    )
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(_length(head))
            finally:
                writer.transport.abort()

        await self.many(20, guess)


ATTACKS = (
    "slow_heads", "slow_bodies", "slow_readers", "pipelines", "endless_heads", "unknown_tokens",
    "wrong_secrets", "attempts_at_the_cap",
)  # fmt: skip


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def _attack(name: str, port: int) -> None:
    """What the attacker's process does until it is killed: it says what it did so far."""
    attack = Attack(port)
    working = asyncio.create_task(getattr(attack, name)())
    while not working.done():
        print(attack.done, flush=True)
        await asyncio.sleep(0.2)
    await working


# What is measured.


@dataclass
class Round:
    """Honest requests alone, then beside an attack."""

    alone_s: list[float] = field(default_factory=list)
    beside_s: list[float] = field(default_factory=list)
    failures: int = 0
    memory_before: int = 0
    memory_most: int = 0
    attempts: int = 0

    @property
    def slowdown(self) -> float:
        """p99 beside the attack, as a multiple of p99 alone."""
        return p99(self.beside_s) / p99(self.alone_s)


def p99(times: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(times, n=100)[98]


class Honest:
    """Callers with a token, each on a connection of its own, which it keeps."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._request = (
            b"GET /api/small HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n\r\n"
            % token.encode()
        )
        self._pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.failures = 0

    async def connect(self) -> None:
        """Connect before the attack does."""
        for _ in range(HONEST_CALLERS):
            self._pairs.append(await asyncio.open_connection("127.0.0.1", self._port))

    async def measure(self, seconds: float) -> list[float]:
        """The times of all answers within so many seconds."""
        times: list[float] = []
        ends = time.monotonic() + seconds

        async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while time.monotonic() < ends:
                began = time.perf_counter()
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
                times.append(time.perf_counter() - began)
                self.failures += not head.startswith(b"HTTP/1.1 200 ")
                await asyncio.sleep(PACE_S)

        for result in await asyncio.gather(
            *(ask(*pair) for pair in self._pairs), return_exceptions=True
        ):
            self.failures += isinstance(result, BaseException)
        return times

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._pairs:
            writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The origin: `ok`, or much."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(_length(head))
            pieces = LARGE_BYTES // len(PIECE) if b"/large " in head else 0
            length = len(PIECE) * pieces or 2
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
            for _ in range(pieces):
                writer.write(PIECE)
                await writer.drain()
            if not pieces:
                writer.write(b"ok")
    writer.transport.abort()


async def _serve_origin() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.attacks", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _start_gateway(config: Path) -> subprocess.Popen[bytes]:
    with config.with_name("stderr.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway", "run", "-c", str(config)], stderr=log
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def _gateway() -> AsyncIterator[tuple[int, str, psutil.Process]]:
    """A gateway with two origins, of which honest requests have one for themselves: what is
    measured is the gateway. Its port, a token, and its process."""
    origins = [_start("--origin") for _ in range(2)]
    ports = [origin.stdout.readline().strip() for origin in origins if origin.stdout]
    port, admin = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gateway.yaml"
        path.write_text(
            CONFIG.format(
                port=port, admin=admin, directory=directory, cap=CAP,
                attacked=ports[0], calm=ports[1],
            )
        )  # fmt: skip
        gateway = _start_gateway(path)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                token = await _get_token(client, f"http://127.0.0.1:{admin}/readyz")
            yield port, token, psutil.Process(gateway.pid)
        finally:
            gateway.kill()
            gateway.wait()
            for origin in origins:
                origin.kill()
                origin.communicate()


async def _get_token(client: httpx.AsyncClient, ready: str) -> str:
    for _ in range(200):
        with contextlib.suppress(httpx.TransportError):
            if (await client.get(ready)).status_code == 200:
                break
        await asyncio.sleep(0.1)
    created = await client.post(
        "/createClient", json={"client_id": "honest", "client_secret": "honest-secret"},
        headers={"Authorization": "Bearer bench-registration"},
    )  # fmt: skip
    created.raise_for_status()
    answer = await client.post(
        "/token", data={"grant_type": "client_credentials"}, auth=("honest", "honest-secret")
    )
    token: str = answer.json()["access_token"]
    return token


async def _measure(name: str, seconds: float) -> Round:
    """One round, on a gateway of its own."""
    found = Round()
    async with _gateway() as (port, token, process):
        honest = Honest(port, token)
        await honest.connect()
        await honest.measure(0.5)
        found.alone_s = await honest.measure(seconds)
        found.memory_before = process.memory_info().rss
        attacker = _start("--attack", name, "--port", str(port))

        async def watch() -> None:
            while True:
                found.memory_most = max(found.memory_most, process.memory_info().rss)
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(1)  # until it is under way
        long = 10 if name == "attempts_at_the_cap" else 1
        found.beside_s = await honest.measure(seconds * long)
        watching.cancel()
        attacker.kill()
        out, _ = await asyncio.to_thread(attacker.communicate)
        found.attempts = int((out.split() or ["0"])[-1])
        found.failures = honest.failures
        honest.close()
    return found


async def _run(names: list[str], *, rounds: int, seconds: float) -> None:
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| Attack | done | p99 alone | p99 beside | ratio (each round) | memory | failures |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        found = [await _measure(name, seconds) for _ in range(rounds)]
        ratios = sorted(one.slowdown for one in found)
        alone = statistics.median(p99(one.alone_s) for one in found)
        beside = statistics.median(p99(one.beside_s) for one in found)
        before = statistics.median(one.memory_before for one in found) / 2**20
        most = max(one.memory_most for one in found) / 2**20
        print(
            f"| {name.replace('_', ' ')} | {max(one.attempts for one in found)} "
            f"| {alone * 1000:.1f} ms | {beside * 1000:.1f} ms "
            f"| {statistics.median(ratios):.1f} ({', '.join(f'{one:.1f}' for one in ratios)}) "
            f"| {before:.0f} -> {most:.0f} MiB | {sum(one.failures for one in found)} |",
            flush=True,
        )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser("python -m bench.attacks", description=__doc__)
    parser.add_argument("--only", choices=ATTACKS, action="append", help="some of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    parser.add_argument("--origin", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        asyncio.run(_attack(options.attack, options.port))
    elif options.origin:
        asyncio.run(_serve_origin())
    else:
        names = options.only or list(ATTACKS)
        asyncio.run(_run(names, rounds=options.rounds, seconds=options.seconds))


if __name__ == "__main__":
    main()
