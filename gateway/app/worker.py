"""A worker: the process that a supervisor starts to serve requests.

    python -m gateway.app.worker --number=N --channel=FD --turn=FD FD,FD FD,FD

Or, in less memory and without importing anything, forked (`gateway.workers.forks`).

All it knows it has from its supervisor: the listening sockets of every worker, by their
descriptors, and a channel, over which the configuration comes first. Signals are for the
supervisor, which directs its workers; a worker whose supervisor is gone drains
and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import pickle
import signal
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import uvloop

from gateway import __version__
from gateway.access_log import ProcessTurn
from gateway.app.build.listeners import group_limiter
from gateway.app.data_listener import DataListener
from gateway.app.generation import Generation
from gateway.app.logs import (
    OwnLogLevel,
    count_dropped_lines,
    set_log_format,
    set_up_logging,
)
from gateway.app.process import keep_what_is_made, leave, let_threads_go, return_large_blocks
from gateway.app.provider import open_provider
from gateway.app.start_errors import StartError
from gateway.background import RetryPauses, keep_running
from gateway.config import Config
from gateway.config.problems import Path
from gateway.downstream.sockets import Sockets, close_sockets
from gateway.history.sampling import Sampler
from gateway.metrics import Metrics
from gateway.oauth.models import Change, StoreError
from gateway.workers.channel import Channel
from gateway.workers.forks import set_title
from gateway.workers.limits import GroupLimiter, GroupRateLimits
from gateway.workers.messages import (
    Adopt,
    ClientFailed,
    ClientSucceeded,
    Collect,
    CommitConfig,
    ConfigResult,
    DiscardConfig,
    Drain,
    Failed,
    Granted,
    Message,
    MetricFamily,
    PrepareConfig,
    Ready,
    Release,
    Revoked,
    Sampled,
    SetLogLevel,
    Snapshot,
    Start,
    Stop,
    UpstreamsReported,
)
from gateway.workers.snapshots import take_snapshot

PUSH_S = 1.0
"""How often metrics are reported unsolicited: a crash loses no more than this."""
PUSH_SHARE = 0.005
"""The share of its time that a worker may spend on that, where there are very many routes."""

_log = logging.getLogger(__name__)


class Worker:
    """Serves requests and does what its supervisor says."""

    def __init__(
        self,
        number: int,
        channel: Channel,
        shares: Mapping[int, Sockets],
        turn: ProcessTurn | None = None,
        authz_shares: Mapping[int, Sockets] | None = None,
        *,
        redirect_shares: Mapping[int, Sockets] | None = None,
        is_activated: bool = False,
    ) -> None:
        self._number = number
        self._channel = channel
        self._shares = shares
        self._authz_shares = authz_shares or {}
        self._redirect_shares = redirect_shares or {}
        self._is_activated = is_activated
        self._turn = turn
        self._metrics = Metrics()
        self._sampler = Sampler(self._metrics)
        count_dropped_lines(self._metrics.process.log_dropped.inc)
        self._rates = GroupRateLimits(channel.send)
        self._limiter: GroupLimiter
        self._data: DataListener
        self._prepared: Generation | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._is_over = asyncio.Event()
        self._reporting = asyncio.Lock()
        self._collecting: list[asyncio.Task[None]] = []
        self._snapshot_s = 0.0
        """CPU time of the last snapshot of the metrics."""
        self._failed_messages = RetryPauses("messages of the supervisor")

    async def run(self) -> int:
        """Serve until asked to stop. Returns the exit status of the process."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._channel.close)
            for shares in (self._shares, self._authz_shares, self._redirect_shares):
                stack.callback(close_sockets, list(shares.values()))
            start = await self._channel.receive()
            if not isinstance(start, Start):
                return 0  # the supervisor was gone before it said anything
            if start.version != __version__:
                return self._fail(f"gateway {start.version} became {__version__}: restart it")
            logging.getLogger().setLevel(start.log_level)
            # From our own parent, over sockets that no other process holds.
            config: Config = pickle.loads(start.config)  # noqa: S301 # nosec B301
            set_log_format(config.log.format)
            try:
                await self._start(config, start, stack)
            except StartError as error:
                return self._fail(error.reason, error.place)
            except StoreError as error:
                return self._fail(str(error), ("store",))
            except (OSError, ssl.SSLError) as error:
                return self._fail(str(error))
            return_large_blocks()
            keep_what_is_made()
            self._channel.send(Ready())
            await self._serve()
            await self._data.stop()
            await self._report_metrics()
        return 0

    def _fail(self, reason: str, place: Path = ()) -> int:
        self._channel.send(Failed(reason, place))
        return 1

    async def _start(self, config: Config, start: Start, stack: AsyncExitStack) -> None:
        self._limiter = group_limiter(config, self._channel.send)
        for failing in start.failing_clients:
            self._limiter.restore(failing)
        self._data = DataListener(
            config, self._metrics, log_turn=self._turn, shared_rates=self._rates
        )
        provider = await open_provider(
            config, self._metrics, self._limiter, stack, on_change=self._revoked
        )
        stack.push_async_callback(self._data.stop)
        await self._data.start(
            provider,
            self._shares,
            self._number,
            self._authz_shares,
            redirect_shares=self._redirect_shares,
            is_activated=self._is_activated,
        )

    def _revoked(self, change: Change) -> None:
        self._data.forget(change)
        self._channel.send(Revoked.of(change))

    async def _serve(self) -> None:
        receiving = asyncio.create_task(self._receive())
        pushing = asyncio.create_task(
            keep_running("report of metrics", self._push_metrics, longest_pause_s=PUSH_S)
        )
        over = asyncio.create_task(self._is_over.wait())
        try:
            await asyncio.wait([receiving, over], return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
                await over
        finally:
            tasks = (receiving, pushing, over, self._preparing, self._draining, *self._collecting)
            for task in tasks:
                if task is not None:
                    task.cancel()

    async def _receive(self) -> None:
        while (message := await self._channel.receive()) is not None:
            try:
                await self._obey(message)
            except Exception as error:
                # One message that can't be obeyed must not cost the requests in flight.
                self._failed_messages.fail(error)
                if isinstance(message, CommitConfig):  # the supervisor waits for the result
                    problem = f"worker {self._number} failed: {type(error).__name__}"
                    self._channel.send(ConfigResult(message.generation, problem))
        _log.error("the supervisor is gone; draining")
        self._drain(self._data.config.shutdown.grace)

    async def _obey(self, message: Message) -> None:
        match message:
            case Collect():
                # Not awaited: revocations are received meanwhile.
                self._collecting.append(asyncio.create_task(self._report_metrics(message.number)))
            case Revoked():
                self._data.forget(message.change)
            case ClientFailed() | ClientSucceeded():
                self._limiter.receive(message)
            case Granted():
                self._rates.receive(message)
            case PrepareConfig():
                self._discard()
                # Not awaited: revocations are received meanwhile.
                self._preparing = asyncio.create_task(self._prepare(message))
            case CommitConfig():
                self._commit()
                self._channel.send(ConfigResult(message.generation))
            case DiscardConfig():
                self._discard()
            case Adopt():
                await self._data.adopt(message.number)
            case Release():
                self._data.release(message.number)
            case SetLogLevel():
                OwnLogLevel().set(message.level)
            case Drain():
                self._drain(message.grace_s)
            case Stop():
                self._is_over.set()

    async def _prepare(self, message: PrepareConfig) -> None:
        """Build what serves another configuration, and say whether that could be done."""
        problem = ""
        try:
            config: Config = await asyncio.to_thread(pickle.loads, message.config)
            self._prepared = await self._data.prepare(config)
        except OSError as error:
            problem = str(error)
        except Exception as error:
            _log.exception("a configuration could not be prepared")
            problem = f"worker {self._number} failed: {type(error).__name__}"
        self._channel.send(ConfigResult(message.generation, problem))

    def _commit(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._data.commit(prepared)

    def _discard(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._data.discard(prepared)

    def _drain(self, grace_s: float) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._data.drain(grace_s=grace_s))
            self._draining.add_done_callback(self._end_of_draining)

    def _end_of_draining(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            _log.error("the drain failed; stopping", exc_info=error)
        self._is_over.set()

    async def _report_metrics(self, number: int = 0) -> None:
        async with self._reporting:  # what is older must not arrive later
            snapshot = await self._metrics.read_in_thread(self._take_snapshot)
            self._channel.send(Snapshot(snapshot, number))
        self._collecting = [task for task in self._collecting if not task.done()]

    def _take_snapshot(self) -> list[MetricFamily]:
        started = time.thread_time()
        snapshot = take_snapshot(self._metrics.registry)
        self._snapshot_s = time.thread_time() - started
        return snapshot

    async def _push_metrics(self) -> None:
        while True:
            # Not by the clock: on a busy machine that would be the time of others, too.
            await self._report_metrics()
            started = time.thread_time()
            self._channel.send(Sampled(self._sampler.take()))
            self._channel.send(UpstreamsReported(self._data.upstream_states()))
            spent_s = self._snapshot_s + time.thread_time() - started
            await asyncio.sleep(max(PUSH_S, spent_s / PUSH_SHARE))


def work_forked(request: bytes, descriptors: Sequence[int]) -> int:
    """Run a worker in a process that was forked: `request` has its command line, and what the
    descriptors are called there."""
    message = json.loads(request)
    name, *arguments = message["arguments"]
    set_title(name, *arguments)
    return main(arguments, dict(zip(message["descriptors"], descriptors, strict=True)))


def main(
    arguments: Sequence[str] | None = None, descriptors: Mapping[int, int] | None = None
) -> int:
    """Run a worker; returns its exit status. `descriptors` are those that are called otherwise
    here than in the arguments."""
    gc.disable()  # until it is ready
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="gateway worker")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--turn", type=int, required=True)
    parser.add_argument(
        "--authz", default="", help="the sockets of external authorization: FD,FD:FD,FD"
    )
    parser.add_argument("--redirect", default="", help="those of plain HTTP, in the same form")
    parser.add_argument("--activated", action="store_true", help="the sockets are systemd's")
    parser.add_argument("shares", nargs="+")
    options = parser.parse_args(arguments)
    set_up_logging(f"worker {options.number}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return leave(runner.run(let_threads_go(_run(options, descriptors or {}))))


async def _run(options: argparse.Namespace, descriptors: Mapping[int, int]) -> int:
    def find(called: int) -> int:
        return descriptors.get(called, called)

    def open_shares(shares: Sequence[str]) -> dict[int, Sockets]:
        return {
            number: [socket.socket(fileno=find(int(called))) for called in share.split(",")]
            for number, share in enumerate(shares, start=1)
        }

    channel = await Channel.open(socket.socket(fileno=find(options.channel)))
    return await Worker(
        options.number,
        channel,
        open_shares(options.shares),
        ProcessTurn(find(options.turn)),
        open_shares(options.authz.split(":") if options.authz else []),
        redirect_shares=open_shares(options.redirect.split(":") if options.redirect else []),
        is_activated=options.activated,
    ).run()


if __name__ == "__main__":
    sys.exit(main())
