"""The callers of a run that speak WebSocket, made of aiohttp: each opens one connection after
another, and sends messages on it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from soak.ledger import Ledger
from soak.message import CLEAN, RESPONSE_S, LostError
from soak.origin import expected_body
from soak.tokens import Tokens

_NUMBERS = itertools.count(1)


@dataclass
class Waited:
    """What a caller waited for last."""

    what: str = "handshake"


@dataclass
class SocketTraffic:
    """So many callers at once, until stopped."""

    port: int
    tokens: Tokens
    ledger: Ledger
    callers: int = 0
    pace_s: float = 0.0
    """The pause of each caller between two messages, on average."""
    chance: random.Random = field(default_factory=random.Random)
    may_lose: Callable[[], bool] = lambda: False
    """Whether a connection that is lost now is the fault's, not the gateway's."""

    def __post_init__(self) -> None:
        self._is_over = False

    def stop(self) -> None:
        """Let each caller end its connection."""
        self._is_over = True

    async def run(self) -> None:
        """All callers, until `stop`; may be run again."""
        self._is_over = False
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for _ in range(self.callers):
                group.create_task(self._call(session))

    async def _call(self, session: aiohttp.ClientSession) -> None:
        while not self._is_over:
            was_excused = self.may_lose()
            waited = Waited()
            try:
                async with asyncio.timeout(RESPONSE_S):
                    await self._talk(session, waited)
            except aiohttp.WSServerHandshakeError as error:
                if error.status in CLEAN:
                    self.ledger.errors[f"socket {error.status}"] += 1
                else:
                    self.ledger.add_wrong(f"socket: {error.status}")
            except aiohttp.ClientConnectorError:
                self.ledger.errors["socket connection refused"] += 1
                await asyncio.sleep(0.05)
            except (LostError, aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                excuse = " (fault)" * (was_excused or self.may_lose())
                cause = f"{type(error).__name__} {error}".rstrip()
                self.ledger.lost[f"socket: {cause}, {waited.what}{excuse}"] += 1
            await asyncio.sleep(self.pace_s * 2 * self.chance.random())

    async def _talk(self, session: aiohttp.ClientSession, waited: Waited) -> None:
        number = f"w{next(_NUMBERS)}"
        token = self.chance.choice(self.tokens.good)
        url = f"http://127.0.0.1:{self.port}/ws/{number}"
        headers = {"Authorization": f"Bearer {token}"}
        async with session.ws_connect(url, headers=headers, autoping=False) as socket:
            for _ in range(self.chance.randrange(1, 10)):
                sent = self.chance.randbytes(self.chance.choice([0, 100, 10_000]))
                await socket.send_bytes(sent)
                waited.what = "message"
                got = await socket.receive()
                if got.type is not aiohttp.WSMsgType.BINARY:
                    raise LostError(got.type.name)
                if got.data != expected_body(number, sent):
                    self.ledger.add_wrong(f"socket: {got.data[:200]!r}")
                    return
                await asyncio.sleep(self.pace_s * 2 * self.chance.random())
            waited.what = "end"
        self.ledger.right["socket"] += 1
