"""The callers of a run: each sends one request after another and books what comes of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from soak.h2_caller import H2Caller, SharedConnection
from soak.ledger import Ledger
from soak.message import CLEAN, RESPONSE_S, LostError, Request
from soak.origin import expected_body, expected_events
from soak.subject import CLIENT, SECRET
from soak.tokens import Tokens

CALLERS_OF_A_CONNECTION = 4
"""Of HTTP/2."""
_NUMBERS = itertools.count(1)
FORM = (("content-type", "application/x-www-form-urlencoded"),)
JSON = (("content-type", "application/json"),)
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Caller:
    """One connection of HTTP/1.1 at a time, kept as long as the gateway keeps it."""

    prefix = ""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def fetch(self, request: Request) -> tuple[int, bytes]:
        """Status and body. Raises `LostError`, and `ConnectionRefusedError` before anything."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        try:
            async with asyncio.timeout(RESPONSE_S):
                self._writer.write(request.as_h1())
                await self._writer.drain()
                status, body, is_last = await _read_response(self._reader)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            self.close()
            raise LostError(type(error).__name__) from None
        if is_last:
            self.close()
        return status, body

    async def hang_up_on(self, request: Request) -> None:
        """Ask, and leave without waiting."""
        with contextlib.suppress(LostError, ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(request.as_h1())
            await writer.drain()
            writer.transport.abort()

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


async def _read_response(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status, body = int(head[9:12]), b""
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    elif b"\r\ncontent-length:" in head:
        length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
    return status, body, b"\r\nconnection: close\r\n" in head


AnyCaller = Caller | H2Caller


@dataclass
class Traffic:
    """So many callers at once, until told to stop."""

    port: int
    tokens: Tokens
    ledger: Ledger
    callers: int = 16
    h2_callers: int = 0
    """More of them, which speak HTTP/2."""
    pace_s: float = 0.0
    """The pause of each caller between two requests, on average."""
    chance: random.Random = field(default_factory=random.Random)
    may_lose: Callable[[], bool] = lambda: False
    """Whether a request that is lost now is the fault's, not the gateway's."""
    assert_workload: Callable[[], str] | None = None
    """A token of a platform for a workload, where there is one."""

    def __post_init__(self) -> None:
        self._is_over = False
        self._kinds = (
            [self._get] * 10 + [self._post] * 4 + [self._refused] * 3 + [self._unknown]
            + [self._revoked] * 2 + [self._hang_up] + [self._reset] + [self._issue]
            + [self._events] + [self._key] * 3 + [self._wrong_key] + [self._mcp] * 2
            + [self._other_tool] + [self._workload] * (self.assert_workload is not None)
        )  # fmt: skip

    def stop(self) -> None:
        """Let each caller end after its response."""
        self._is_over = True

    async def run(self) -> None:
        """All callers, until `stop`; may be run again."""
        self._is_over = False
        connections = -(-self.h2_callers // CALLERS_OF_A_CONNECTION)
        shared = [SharedConnection(self.port) for _ in range(connections)]
        async with asyncio.TaskGroup() as group:
            for _ in range(self.callers):
                group.create_task(self._call(Caller(self.port)))
            for number in range(self.h2_callers):
                caller = H2Caller(shared[number // CALLERS_OF_A_CONNECTION])
                group.create_task(self._call(caller))
        for one in shared:
            one.close()

    async def _call(self, caller: AnyCaller) -> None:
        while not self._is_over:
            kind = self.chance.choice(self._kinds)
            name = caller.prefix + kind.__name__.strip("_")
            try:
                await kind(caller)
            except LostError as error:
                self.ledger.lost[f"{name}: {error}" + " (fault)" * self.may_lose()] += 1
            except OSError:
                # Never accepted, so never promised: the next one comes after a moment.
                self.ledger.errors["connection refused"] += 1
                await asyncio.sleep(0.05)
            await asyncio.sleep(self.pace_s * 2 * self.chance.random())
        caller.close()

    async def _get(self, caller: AnyCaller) -> None:
        action = self.chance.choice(["ok", "ok", "ok", "chunked", "close", "slow"])
        await self._expect_proof(caller, "GET", action, b"")

    async def _post(self, caller: AnyCaller) -> None:
        body = self.chance.randbytes(self.chance.choice([0, 10, 1000, 100_000]))
        await self._expect_proof(caller, "POST", "ok", body)

    async def _issue(self, caller: AnyCaller) -> None:
        """A token that is used once, and so fills the cache with what nobody asks for again."""
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        await self._expect_token(caller, "token issued", f"Basic {basic}")

    async def _workload(self, caller: AnyCaller) -> None:
        """The same of a workload, by a token of its platform."""
        assert self.assert_workload is not None
        form = {"client_assertion_type": ASSERTION, "client_assertion": self.assert_workload()}
        await self._expect_token(caller, "workload's token issued", None, form)

    async def _expect_token(
        self,
        caller: AnyCaller,
        kind: str,
        authorization: str | None,
        form: Mapping[str, str] | None = None,
    ) -> None:
        body = urlencode({"grant_type": "client_credentials", **(form or {})}).encode()
        status, response = await caller.fetch(Request("POST", "/token", authorization, FORM, body))
        reported = _read_json(response)
        if status == 200 and "access_token" in reported:
            self.ledger.right[caller.prefix + kind] += 1
            await self._expect_proof(caller, "GET", "ok", b"", token=reported["access_token"])
        elif status in CLEAN and "error" in reported:
            self.ledger.errors[f"{kind}: {status} {reported['error']}"] += 1
        else:
            self.ledger.add_wrong(f"POST /token: {status} {response[:200]!r}")

    async def _expect_proof(
        self, caller: AnyCaller, method: str, action: str, body: bytes, *, token: str = ""
    ) -> None:
        number = f"n{next(_NUMBERS)}"
        token = token or self.chance.choice(self.tokens.good)
        is_chunked = self.chance.random() < 0.5 and bool(body)
        path = f"/api/{action}/{number}"
        request = Request(method, path, f"Bearer {token}", body=body, is_chunked=is_chunked)
        await self._expect(caller, f"{method} {action}", request, expected_body(number, body))

    async def _expect(
        self, caller: AnyCaller, kind: str, request: Request, expected: bytes | int
    ) -> None:
        """`expected` is a body, or a status of the gateway's own."""
        status, response = await caller.fetch(request)
        if isinstance(expected, int):
            is_right = status == expected and _is_problem(response)
        else:
            is_right = status == 200 and response == expected
        if is_right:
            self.ledger.right[caller.prefix + kind] += 1
        elif status in CLEAN and _is_problem(response):
            self.ledger.errors[f"{status} {json.loads(response)['reason']}"] += 1
        else:
            self.ledger.add_wrong(f"{caller.prefix}{kind}: {status} {response[:200]!r}")

    async def _events(self, caller: AnyCaller) -> None:
        number = f"n{next(_NUMBERS)}"
        token = self.chance.choice(self.tokens.good)
        request = Request("GET", f"/api/events/{number}", f"Bearer {token}")
        await self._expect(caller, "events", request, expected_events(number))

    async def _key(self, caller: AnyCaller) -> None:
        number = f"n{next(_NUMBERS)}"
        fields = (("x-api-key", self.chance.choice(self.tokens.api_keys)),)
        request = Request("GET", f"/keys/ok/{number}", fields=fields)
        await self._expect(caller, "API key", request, expected_body(number, b""))

    async def _wrong_key(self, caller: AnyCaller) -> None:
        fields = (("x-api-key", self.chance.choice(self.tokens.api_keys)[:-1] + "?"),)
        await self._expect(
            caller, "wrong API key", Request("GET", "/keys/ok/0", fields=fields), 401
        )

    async def _mcp(self, caller: AnyCaller) -> None:
        number, request = self._call_tool("prove")
        await self._expect(caller, "MCP tool", request, expected_body(number, request.body))

    async def _other_tool(self, caller: AnyCaller) -> None:
        _, request = self._call_tool("other")
        await self._expect(caller, "MCP tool that is none", request, 403)

    def _call_tool(self, name: str) -> tuple[str, Request]:
        number = f"n{next(_NUMBERS)}"
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": name}}
        token = self.chance.choice(self.tokens.mcp)
        body = json.dumps(message).encode()
        return number, Request("POST", "/mcp", f"Bearer {token}", JSON, body)

    async def _refused(self, caller: AnyCaller) -> None:
        await self._expect_refusal(caller, "no token", None)

    async def _unknown(self, caller: AnyCaller) -> None:
        token = f"{self.chance.getrandbits(256):x}"
        await self._expect_refusal(caller, "unknown token", token)

    async def _revoked(self, caller: AnyCaller) -> None:
        if self.tokens.revoked:
            token = self.chance.choice(self.tokens.revoked)
            await self._expect_refusal(caller, "revoked token", token)

    async def _expect_refusal(self, caller: AnyCaller, kind: str, token: str | None) -> None:
        authorization = None if token is None else f"Bearer {token}"
        await self._expect(caller, kind, Request("GET", "/api/ok/0", authorization), 401)

    async def _hang_up(self, caller: AnyCaller) -> None:
        token = self.chance.choice(self.tokens.good)
        await caller.hang_up_on(Request("GET", "/api/slow/0", f"Bearer {token}"))
        self.ledger.right[f"{caller.prefix}hung up on"] += 1

    async def _reset(self, caller: AnyCaller) -> None:
        """An upstream that breaks off: the response must not look whole."""
        token = self.chance.choice(self.tokens.good)
        try:
            status, response = await caller.fetch(Request("GET", "/api/reset/0", f"Bearer {token}"))
        except LostError:
            self.ledger.right[f"{caller.prefix}broken response stays broken"] += 1
            return
        if status in CLEAN and _is_problem(response):
            self.ledger.right["broken response is a clean error"] += 1
        else:
            self.ledger.add_wrong(f"broken response looks whole: {status} {len(response)} bytes")


def _is_problem(response: bytes) -> bool:
    return isinstance(_read_json(response).get("reason"), str)


def _read_json(response: bytes) -> dict[str, Any]:
    """The object of a response; empty where it is none."""
    with contextlib.suppress(ValueError):
        if isinstance(reported := json.loads(response), dict):
            return reported
    return {}
