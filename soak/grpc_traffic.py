"""The gRPC callers of a run, made of grpcio: unary calls, and streams of either and both sides."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from soak.grpc_origin import FAILURE, NUMBER, SERVICE
from soak.ledger import Ledger
from soak.message import RESPONSE_S, LostError
from soak.origin import expected_body
from soak.tokens import Tokens

CHANNELS = 2
_NUMBERS = itertools.count(1)
CLEAN = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
"""What the gateway says for an upstream or a store that is away."""
WRITE_FAILED = "Internal error from Core"
"""What grpcio says of a call whose response, whatever it was, came before the rest of its request:
the status is lost with the message that could not be sent any more."""
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 10_000), ("grpc.max_reconnect_backoff_ms", 500),
)  # fmt: skip
"""The second is, in spite of its name, how long an attempt to connect may take."""


@dataclass
class GrpcTraffic:
    """So many callers at once on few connections, until stopped."""

    port: int
    tokens: Tokens
    ledger: Ledger
    callers: int = 8
    pace_s: float = 0.0
    """The pause of each caller between two calls, on average."""
    chance: random.Random = field(default_factory=random.Random)
    may_lose: Callable[[], bool] = lambda: False
    """Whether a call that is lost now is the fault's, not the gateway's."""

    def __post_init__(self) -> None:
        self._is_over = False
        self._kinds = (
            [self._unary] * 6 + [self._watch] * 2 + [self._collect] * 2 + [self._chat] * 2
            + [self._fail, self._refused, self._unknown, self._revoked, self._cancel]
        )  # fmt: skip

    def stop(self) -> None:
        """Let each caller end after its call."""
        self._is_over = True

    async def run(self) -> None:
        """All callers, until `stop`; may be run again."""
        self._is_over = False
        channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=OPTIONS)
            for _ in range(min(CHANNELS, self.callers))
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.callers):
                    group.create_task(self._call(channels[number % CHANNELS]))
        finally:
            for channel in channels:
                await channel.close()

    async def _call(self, channel: Any) -> None:
        while not self._is_over:
            kind = self.chance.choice(self._kinds)
            name = f"grpc {kind.__name__.strip('_')}"
            was_excused = self.may_lose()
            try:
                await kind(channel)
            except grpc.aio.AioRpcError as error:
                self._book(name, error, is_excused=was_excused or self.may_lose())
            except LostError as error:
                is_excused = was_excused or self.may_lose()
                self.ledger.lost[f"{name}: {error}" + " (fault)" * is_excused] += 1
            await asyncio.sleep(self.pace_s * 2 * self.chance.random())

    def _book(self, name: str, error: Any, *, is_excused: bool) -> None:
        """Book a call that failed: a clean error of the gateway, or a call that was lost."""
        code, details = error.code().name, str(error.details())
        if is_of_the_gateway(error):
            # A server that is stopped says so of the calls that it has.
            if code in CLEAN or (code == "CANCELLED" and is_excused):
                self.ledger.errors[f"grpc {code}"] += 1
            else:
                self.ledger.add_wrong(f"{name}: {code} {details}")
        elif details == WRITE_FAILED:
            self.ledger.errors["grpc response before the end of the request"] += 1
        elif "onnection refused" in details:
            self.ledger.errors["grpc connection refused"] += 1
        else:
            excuse = " (fault)" * is_excused
            self.ledger.lost[f"{name}: {code} {details[:200]}{excuse}"] += 1

    def _expect(self, name: str, got: object, expected: object) -> None:
        if got == expected:
            self.ledger.right[f"grpc {name}"] += 1
        else:
            self.ledger.add_wrong(f"grpc {name}: {str(got)[:200]} in place of {expected!s:.200}")

    def _method(self, channel: Any, shape: str, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(channel, shape)(f"/{SERVICE}/{name}")
        return method

    def _options(self, token: str | None = "") -> tuple[str, dict[str, Any]]:
        """The number of a call, and its metadata; by default with a good token."""
        number = f"g{next(_NUMBERS)}"
        metadata = [(NUMBER, number)]
        if token is not None:
            metadata.append(("authorization", f"Bearer {token or self._good()}"))
        return number, {"metadata": metadata, "timeout": RESPONSE_S}

    def _good(self) -> str:
        return self.chance.choice(self.tokens.good)

    async def _unary(self, channel: Any) -> None:
        number, options = self._options()
        body = self.chance.randbytes(self.chance.choice([0, 30, 1000, 100_000]))
        got = await self._method(channel, "unary_unary", "Unary")(body, **options)
        self._expect("unary", got, expected_body(number, body))

    async def _watch(self, channel: Any) -> None:
        number, options = self._options()
        count = self.chance.randrange(20)
        call = self._method(channel, "unary_stream", "Watch")(str(count).encode(), **options)
        got = [one async for one in call]
        self._expect(
            "server stream", got, [expected_body(f"{number}.{step}", b"") for step in range(count)]
        )

    async def _collect(self, channel: Any) -> None:
        number, options = self._options()
        pieces = [self.chance.randbytes(1000) for _ in range(self.chance.randrange(20))]

        async def send() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece
                await asyncio.sleep(0)

        got = await self._method(channel, "stream_unary", "Collect")(send(), **options)
        self._expect("client stream", got, expected_body(number, b"".join(pieces)))

    async def _chat(self, channel: Any) -> None:
        number, options = self._options()
        call = self._method(channel, "stream_stream", "Chat")(**options)
        for _ in range(self.chance.randrange(1, 10)):
            sent = self.chance.randbytes(100)
            await call.write(sent)
            if (received := await call.read()) is grpc.aio.EOF:
                raise LostError(f"the stream ended early: {await call.code()}")
            if received != expected_body(number, sent):
                self._expect("both stream", received, expected_body(number, sent))
                return
        await call.done_writing()
        self._expect("both stream", await call.read(), grpc.aio.EOF)

    async def _fail(self, channel: Any) -> None:
        """A status of the server's own, which must come as it is."""
        _, options = self._options()
        try:
            await self._method(channel, "unary_unary", "Fail")(b"", **options)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            self._expect("server's status", error.details(), FAILURE)
            return
        self.ledger.add_wrong("grpc: a call that failed looks well")

    async def _cancel(self, channel: Any) -> None:
        """A stream that its client leaves."""
        _, options = self._options()
        call = self._method(channel, "stream_stream", "Chat")(**options)
        await call.write(b"a")
        await call.read()
        call.cancel()
        self.ledger.right["grpc cancelled"] += 1

    async def _refused(self, channel: Any) -> None:
        await self._expect_refusal(channel, "no token", None)

    async def _unknown(self, channel: Any) -> None:
        await self._expect_refusal(channel, "unknown token", f"{self.chance.getrandbits(256):x}")

    async def _revoked(self, channel: Any) -> None:
        if self.tokens.revoked:
            token = self.chance.choice(self.tokens.revoked)
            await self._expect_refusal(channel, "revoked token", token)

    async def _expect_refusal(self, channel: Any, kind: str, token: str | None) -> None:
        _, options = self._options(token)
        try:
            await self._method(channel, "unary_unary", "Unary")(b"", **options)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            self.ledger.right[f"grpc {kind}"] += 1
            return
        self.ledger.add_wrong(f"grpc {kind}: passed")


def is_of_the_gateway(error: Any) -> bool:
    """Whether a failed call got a response, in place of a connection that ended."""
    return any(name == "x-request-id" for name, _ in error.trailing_metadata() or ())
