"""Any order of what a client and an upstream may do on their streams, by a state machine.

Both are hyper-h2, an engine independent of ours, so that it is the judge of what may be sent. What
each of them has sent reaches the other, whole and in order, or as far as it came before a reset;
and each request is over, and logged, exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.clients.h2_client import H2Client, H2Response
from support.deadlines import until
from support.running_gateway import RunningGateway, make_config, start_gateway
from support.servers.h2_upstream import H2Request, H2Upstream

TRAILERS = [("x-checksum", "1")]
PICKS = st.integers(0, 1000)
PIECES = st.binary(min_size=1, max_size=3000)


@dataclass(eq=False)
class Call:
    """A request, as the two ends know it."""

    number: int
    stream: int
    response: H2Response
    has_ended: bool
    sent: bytes = b""
    has_trailers: bool = False
    is_left: bool = False
    """Whether the client broke it off."""
    request: H2Request | None = None
    has_head: bool = False
    responded: bytes = b""
    has_responded: bool = False
    is_broken: bool = False
    """Whether the upstream broke it off."""
    response_trailers: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the client can send nothing more."""
        return self.has_ended or self.is_left or self.response.is_over

    @property
    def may_respond(self) -> bool:
        """Whether the upstream can."""
        return not (self.has_responded or self.is_broken or self.is_left)


@dataclass
class World:
    """What all examples share: starting a gateway takes longer than one of them."""

    loop: asyncio.AbstractEventLoop
    gateway: RunningGateway
    upstream: H2Upstream
    requests: dict[int, H2Request]
    """Those that have come, by their numbers."""
    count: int = 0

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        """Run the loop until it is done."""
        return self.loop.run_until_complete(what)


def make_machine(world: World) -> type[RuleBasedStateMachine]:
    """Make the machine whose examples run in this world."""

    class Streams(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.client: H2Client = world.run(H2Client.connect(world.gateway.port))
            self.calls: list[Call] = []

        def pick(self, calls: list[Call], at: int) -> Call | None:
            return calls[at % len(calls)] if calls else None

        def sending(self) -> list[Call]:
            return [call for call in self.calls if not call.is_over]

        def arrived(self) -> list[Call]:
            """Those that the upstream may go on with."""
            calls = [call for call in self.calls if call.may_respond]
            for call in calls:
                if call.request is None:
                    world.run(until(partial(world.requests.__contains__, call.number)))
                    call.request = world.requests[call.number]
            return calls

        # The client.

        @precondition(lambda self: len(self.calls) < 8)
        @rule(has_body=st.booleans())
        def begin(self, *, has_body: bool) -> None:
            world.count += 1
            number = world.count
            stream = self.client.begin(
                f"/public/{number}",
                method="POST" if has_body else "GET",
                fields=[("x-number", str(number))],
                ends=not has_body,
            )
            self.calls.append(
                Call(number, stream, self.client.responses[stream], has_ended=not has_body)
            )

        @rule(at=PICKS, piece=PIECES)
        def send(self, at: int, piece: bytes) -> None:
            call = self.pick(self.sending(), at)
            if call is not None:
                room = self.client.core.local_flow_control_window(call.stream)
                piece = piece[: max(room, 0)]
                self.client.send(call.stream, piece)
                call.sent += piece

        @rule(at=PICKS, trailers=st.booleans())
        def finish_request(self, at: int, *, trailers: bool) -> None:
            call = self.pick(self.sending(), at)
            if call is not None:
                self._finish_request(call, trailers=trailers)

        def _finish_request(self, call: Call, *, trailers: bool) -> None:
            call.has_ended = True
            call.has_trailers = trailers
            if trailers:
                self.client.send_trailers(call.stream, TRAILERS)
            else:
                self.client.send(call.stream, b"", ends=True)

        @rule(at=PICKS)
        def leave(self, at: int) -> None:
            open_ones = [one for one in self.calls if not one.is_left and not one.response.is_over]
            call = self.pick(open_ones, at)
            if call is None:
                return
            call.is_left = True
            self.client.reset(call.stream)

        @rule(window=st.integers(1000, 100_000))
        def change_window(self, window: int) -> None:
            self.client.core.update_settings({4: window})
            self.client.flush()

        @rule()
        def ping(self) -> None:
            self.client.core.ping(b"12345678")
            self.client.flush()

        # The upstream.

        @rule(at=PICKS)
        def respond(self, at: int) -> None:
            call = self.pick([one for one in self.arrived() if not one.has_head], at)
            if call is not None and call.request is not None:
                call.has_head = True
                call.request.head(headers=[(b"x-number", b"%d" % call.number)])

        @rule(at=PICKS, piece=PIECES)
        def send_response(self, at: int, piece: bytes) -> None:
            call = self.pick([one for one in self.arrived() if one.has_head], at)
            if call is not None and call.request is not None:
                call.request.send(piece)
                call.responded += piece

        @rule(at=PICKS, trailers=st.booleans())
        def finish_response(self, at: int, *, trailers: bool) -> None:
            call = self.pick([one for one in self.arrived() if one.has_head], at)
            if call is not None:
                self._finish_response(call, trailers=trailers)

        def _finish_response(self, call: Call, *, trailers: bool) -> None:
            assert call.request is not None
            call.has_responded = True
            call.response_trailers = trailers
            call.request.end([(b"x-checksum", b"1")] if trailers else ())
            world.run(until(lambda: call.response.is_over))

        @rule(at=PICKS)
        def break_off(self, at: int) -> None:
            call = self.pick([one for one in self.arrived() if one.has_head], at)
            if call is not None and call.request is not None:
                call.is_broken = True
                call.request.reset()
                world.run(until(lambda: call.response.is_over))

        # What must hold at the end.

        def teardown(self) -> None:
            try:
                for call in self.calls:
                    self._check(call)
                counts = world.gateway.gateway.metrics.data_plane
                world.run(until(lambda: counts.inflight_requests == 0))
                lines = world.run(world.gateway.logged(world.count))
                assert len(lines) == world.count
                assert not counts.h2.errors["protocol"]
                assert not world.upstream.errors
            finally:
                world.run(self.client.close())

        def _check(self, call: Call) -> None:
            if not call.is_over:
                self._finish_request(call, trailers=False)
            if call.is_left:
                self._check_left(call)
                return
            self.arrived()
            request, response = call.request, call.response
            if call.may_respond and request is not None:
                if not call.has_head:
                    call.has_head = True
                    request.head(headers=[(b"x-number", b"%d" % call.number)])
                self._finish_response(call, trailers=False)
            if call.is_broken and response.status == 502:
                return
            if call.is_broken:
                assert call.responded.startswith(response.body)
                assert response.reset is not None
                return
            assert response.status == 200
            assert dict(response.headers)["x-number"] == str(call.number)
            assert response.body == call.responded
            assert response.trailers == (TRAILERS if call.response_trailers else [])
            assert request is not None
            assert call.sent.startswith(request.body)
            if request.is_complete:
                assert request.body == call.sent
                trailers = [(b"x-checksum", b"1")] if call.has_trailers else []
                assert request.trailers == trailers

        def _check_left(self, call: Call) -> None:
            """The work at the upstream is cancelled, where it had begun and is not over."""
            request = world.requests.get(call.number)
            if request is not None and not call.has_responded and not call.is_broken:
                world.run(until(lambda: request.reset_code is not None))
                assert call.sent.startswith(request.body)

    return Streams


def test_streams_in_any_order(tmp_path: Path) -> None:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    stack = contextlib.AsyncExitStack()
    try:
        world = loop.run_until_complete(make_world(loop, tmp_path, stack))
        run_state_machine_as_test(
            make_machine(world),
            settings=settings(
                max_examples=15,
                stateful_step_count=25,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        loop.run_until_complete(stack.aclose())
        asyncio.set_event_loop(None)
        loop.close()


async def make_world(
    loop: asyncio.AbstractEventLoop, directory: Path, stack: contextlib.AsyncExitStack
) -> World:
    """Start a gateway in front of an upstream that does what it is made to."""
    session = await stack.enter_async_context(aiohttp.ClientSession())
    requests: dict[int, H2Request] = {}

    def arrive(request: H2Request) -> None:
        requests[int(request.one(b"x-number"))] = request

    upstream = await stack.enter_async_context(H2Upstream(on_head=arrive, on_end=None))
    main = {"targets": [upstream.url], "protocol": "http2", "retries": {"attempts": 0}}
    text = make_config(directory, upstreams={"main": main})
    gateway = await start_gateway(directory, text, session)
    stack.push_async_callback(gateway.stop)
    return World(loop, gateway, upstream, requests)
