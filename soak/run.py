"""One run: traffic without a pause, and an event every few seconds."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx

from soak.grpc_origin import GrpcOrigin
from soak.grpc_traffic import GrpcTraffic
from soak.ledger import Ledger
from soak.message import CLEAN, RESPONSE_S
from soak.origin import Origin
from soak.peers import Peers
from soak.socket_traffic import SocketTraffic
from soak.store_proxy import StoreProxy, open_proxy
from soak.subject import Subject, ended
from soak.tokens import Tokens
from soak.traffic import Traffic
from soak.watch import Sample, Watch, look, look_at_rest

REVOCATION_S = 1.0
"""How long a revoked token may still pass: the promise that is held against the gateway."""
ON_ITS_WAY_S = 1.0
"""How long a request may take from its caller to the check of its token, on a busy machine."""
WARM_UP_S = 5.0
SETTLE_S = 15.0
PATIENCE_S = 15.0
FAULT_S = 3.0
"""How long after a fault a lost request is the fault's."""
MAX_RISE_MIB = 5.0
"""Of memory over the second half, by its slope; the longer a run, the smaller a leak it finds."""
KILLS_SHARE = 1 / 3
"""Of a run, from its beginning, in which workers are killed: a new process would hide how the
memory of an old one grows, and has to be warm where the second half begins."""

EVENTS = (
    "revoke", "reload", "revoke", "reload_badly", "revoke", "restart_upstream", "revoke",
    "kill_worker", "cut_store",
)  # fmt: skip
"""What happens, again and again: methods of `Run`."""
SPARE = {"connections": 4, "descriptors": 8, "tasks": 4}
"""How many more there may be when traffic has drained. What looks has a connection and a task
itself; the second reader of a SQLite file is opened (2 files) when two first read at once."""


Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Plan:
    """What a run is to be."""

    directory: Path
    store: str
    seconds: int = 600
    workers: int = 2
    callers: int = 16
    h2_callers: int = 0
    grpc_callers: int = 0
    socket_callers: int = 0
    pace_s: float = 0.01
    seed: int = 1
    events: tuple[str, ...] = EVENTS
    warm_up_s: float = WARM_UP_S


@dataclass
class Report:
    """What came of it."""

    ledger: Ledger
    before: Sample
    after: Sample
    slope_mib_per_hour: float
    """Over the second half."""
    seconds: int
    events: list[str]
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            str(self.ledger),
            f"memory: {_memory(self.before)} at first, {_memory(self.after)} at the end,"
            f" slope {self.slope_mib_per_hour:+.1f} MiB/h over the second half",
            "idle before and after:"
            f" {self.before.descriptors} and {self.after.descriptors} descriptors,"
            f" {self.before.connections} and {self.after.connections} TCP connections,"
            f" {self.before.tasks} and {self.after.tasks} tasks",
            f"{len(self.events)} events",
            *(f"FAULT: {fault}" for fault in self.faults),
        ]
        return "\n".join(lines)


def _memory(sample: Sample) -> str:
    processes = " + ".join(f"{mib:.0f}" for mib in sample.rss_by_process)
    return f"{sample.rss_mib:.0f} MiB ({processes})"


class Run:
    """The parts of a run, and the events that happen to them."""

    def __init__(
        self,
        plan: Plan,
        subject: Subject,
        origin: Origin,
        client: httpx.AsyncClient,
        *,
        grpc_origin: GrpcOrigin | None = None,
        peers: Peers | None = None,
        store_proxy: StoreProxy | None = None,
    ) -> None:
        self.plan = plan
        self.subject = subject
        self.origin = origin
        self.grpc_origin = grpc_origin
        self.peers = peers
        self.store_proxy = store_proxy
        self.ledger = Ledger()
        self.tokens = Tokens()
        self.events: list[str] = []
        self.faults: list[str] = []
        self._client = client
        self._fault_until = 0.0
        self._chance = random.Random(plan.seed)  # noqa: S311 # a run that can be repeated
        self.traffic = Traffic(
            subject.port,
            self.tokens,
            self.ledger,
            callers=plan.callers,
            h2_callers=plan.h2_callers,
            pace_s=plan.pace_s,
            chance=self._chance,
            may_lose=self._is_excused,
            assert_workload=partial(peers.assert_workload, subject.url) if peers else None,
        )
        self.grpc_traffic = GrpcTraffic(
            subject.port,
            self.tokens,
            self.ledger,
            callers=plan.grpc_callers if grpc_origin else 0,
            pace_s=plan.pace_s,
            chance=self._chance,
            may_lose=self._is_excused,
        )
        self.socket_traffic = SocketTraffic(
            subject.port,
            self.tokens,
            self.ledger,
            callers=plan.socket_callers if peers else 0,
            pace_s=plan.pace_s,
            chance=self._chance,
            may_lose=self._is_excused,
        )

    def _is_excused(self) -> bool:
        return time.monotonic() < self._fault_until

    async def send(self) -> None:
        """All traffic, until `stop`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.traffic.run())
            group.create_task(self.grpc_traffic.run())
            group.create_task(self.socket_traffic.run())

    def stop(self) -> None:
        """Let each caller end after its response."""
        self.traffic.stop()
        self.grpc_traffic.stop()
        self.socket_traffic.stop()

    def excuse(self, for_s: float) -> None:
        """For so many seconds, a lost request is the fault's."""
        self._fault_until = time.monotonic() + for_s

    async def fill(self) -> None:
        """Tokens and API keys to begin with."""
        for _ in range(20):
            self.tokens.good.append(await self.subject.issue(self._client))
        resource = f"{self.subject.url}/mcp"
        self.tokens.mcp.append(await self.subject.issue(self._client, resource=resource))
        self.tokens.api_keys.append(await self.subject.create_api_key(self._client))

    async def warm_up(self) -> Sample:
        """Have the gateway open what it keeps once it was used: threads, and their files. What
        there is at rest after that."""
        cold = await _settled(self.subject)
        warming = asyncio.create_task(self.send())
        await asyncio.sleep(self.plan.warm_up_s)
        self.stop()
        await warming
        return await _settled(self.subject, like=cold)

    async def revoke(self) -> None:
        """A token is revoked, and must be refused from the promised moment on."""
        token = self.tokens.good.pop(0)
        await asyncio.sleep(ON_ITS_WAY_S)  # caches have it for longer
        await patiently(partial(self.subject.revoke, self._client, token), self.ledger)
        issue = partial(self.subject.issue, self._client)
        self.tokens.good.append(await patiently(issue, self.ledger))
        await asyncio.sleep(REVOCATION_S)
        self.tokens.revoked.append(token)
        del self.tokens.revoked[:-50]

    async def reload(self) -> None:
        """A changed configuration, which must cost no request."""
        before = await self.subject.metric("gateway_config_reloads_total", result="ok")
        ttl = self._chance.randrange(3, 9)
        self.subject.reload(self.subject.sound.replace("ttl: 5s", f"ttl: {ttl}s"))
        await self._counts("ok", before)

    async def reload_badly(self) -> None:
        """A broken one, which must change nothing."""
        before = await self.subject.metric("gateway_config_reloads_total", result="error")
        self.subject.reload(self.subject.sound + "surprise: [\n")
        await self._counts("error", before)

    async def _counts(self, result: str, before: float) -> None:
        deadline = time.monotonic() + 10
        while await self.subject.metric("gateway_config_reloads_total", result=result) <= before:
            if time.monotonic() > deadline:
                self.faults.append(f"a reload was not counted as {result}")
                return
            await asyncio.sleep(0.1)

    async def restart_upstream(self) -> None:
        """The upstream goes away for a second."""
        self.excuse(FAULT_S)
        peers = (self.origin, self.grpc_origin, self.peers)
        origins = [one for one in peers if one is not None]
        for one in origins:
            await one.stop()
        await asyncio.sleep(1)
        for one in origins:
            await one.start()

    async def kill_worker(self) -> None:
        """kill -9: requests in flight in that worker are lost, others are not."""
        self.excuse(FAULT_S)
        self.subject.kill_a_worker()

    async def cut_store(self) -> None:
        """The store is unavailable for a second, and must be used again soon after; nothing is
        lost by that. A store that is a file stays."""
        if self.store_proxy is None:
            return
        await self.store_proxy.stop()
        await asyncio.sleep(1)
        await self.store_proxy.start()
        try:
            await patiently(partial(self.subject.issue, self._client), self.ledger)
        except httpx.HTTPStatusError:
            self.faults.append("the store was not used again after an outage")

    async def happen(self, until: float) -> None:
        """One event after another."""
        events = [getattr(self, name) for name in self.plan.events]
        kill_until = time.monotonic() + (until - time.monotonic()) * KILLS_SHARE
        for event in itertools.cycle(events):
            if time.monotonic() + 5 > until:
                return
            if event == self.kill_worker and time.monotonic() > kill_until:
                continue
            self.events.append(event.__name__)
            await event()
            await asyncio.sleep(min(2.0, self.plan.seconds / 40))


async def patiently(call: Callable[[], Awaitable[Outcome]], ledger: Ledger) -> Outcome:
    """Make a call of an event, again for a while where the response is a clean error: a store that
    is back is found by each worker in its turn, and on a busy machine a call of it may time out."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await call()
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status not in CLEAN or time.monotonic() > deadline:
                raise
            ledger.errors[f"event: {status}"] += 1
            await asyncio.sleep(0.1)


async def soak(plan: Plan, *, show: Callable[[str], None] = lambda line: None) -> Report:
    """Run as planned."""
    origin = Origin()
    await origin.start()
    grpc_origin = GrpcOrigin() if plan.grpc_callers else None
    if grpc_origin is not None:
        await grpc_origin.start()
    peers = Peers()
    await peers.start()
    store_proxy = open_proxy(plan.store)
    if store_proxy is not None:
        await store_proxy.start()
    subject = Subject(
        plan.directory,
        origin.port,
        workers=plan.workers,
        store=store_proxy.url if store_proxy else plan.store,
        grpc_port=grpc_origin.port if grpc_origin else 0,
        peers_port=peers.port,
    )
    with ended(subject):
        # In threads: it may need what is served here.
        await asyncio.to_thread(subject.start)
        await asyncio.to_thread(subject.create_client)
        async with httpx.AsyncClient(timeout=RESPONSE_S) as client:
            run = Run(
                plan, subject, origin, client,
                grpc_origin=grpc_origin, peers=peers, store_proxy=store_proxy,
            )  # fmt: skip
            report = await _soak(run, show)
        status = await asyncio.to_thread(subject.stop)
        if status != 0:
            report.faults.append(f"the gateway ended with {status}")
    for sign in ("Traceback", "was never retrieved", "was destroyed but it is pending"):
        if sign in subject.log():
            report.faults.append(f"its log says {sign!r}")
    for one in (origin, grpc_origin, peers, store_proxy):
        if one is not None:
            await one.stop()
    return report


async def _soak(run: Run, show: Callable[[str], None]) -> Report:
    await run.fill()
    before = await run.warm_up()
    until = time.monotonic() + run.plan.seconds
    watch = Watch(run.subject)
    watching = asyncio.create_task(watch.run())
    showing = asyncio.create_task(_show(run, until, show))
    traffic = asyncio.create_task(run.send())
    await run.happen(until)
    await asyncio.sleep(max(0.0, until - time.monotonic()))
    run.stop()
    await traffic
    watching.cancel()
    showing.cancel()
    run.ledger.upstream.update(run.origin.seen)
    if run.grpc_origin is not None:
        run.ledger.upstream.update(run.grpc_origin.seen)
    after = await _settled(run.subject, like=before)
    report = Report(
        run.ledger,
        before,
        after,
        watch.slope_mib_per_hour(),
        run.plan.seconds,
        run.events,
        list(run.faults),
    )
    report.faults += evaluate(report)
    return report


def evaluate(report: Report) -> list[str]:
    """What may not be."""
    ledger, faults = report.ledger, []
    unexcused = {name: n for name, n in ledger.lost.items() if not name.endswith("(fault)")}
    if ledger.wrong:
        faults.append(f"{len(ledger.wrong)} wrong responses")
    if unexcused:
        faults.append(f"requests were lost: {unexcused}")
    if ledger.doubled:
        faults.append(f"{ledger.doubled} requests were sent twice")
    for name, spare in SPARE.items():
        before, after = getattr(report.before, name), getattr(report.after, name)
        if after > before + spare:
            more = dict(Counter(report.after.kinds) - Counter(report.before.kinds))
            by_kind = f", {more} more" if more and name == "descriptors" else ""
            faults.append(f"{name} leaked: {before}, then {after}{by_kind}")
    slope = report.slope_mib_per_hour
    if slope * report.seconds / 2 / 3600 > MAX_RISE_MIB:
        faults.append(f"memory grows by {slope:.0f} MiB/h")
    return faults


async def _settled(subject: Subject, like: Sample | None = None) -> Sample:
    """The processes at rest: as `like`, or as they are when the wait is over."""
    deadline = time.monotonic() + (SETTLE_S if like else 1.0)
    sample = await look_at_rest(subject)
    while time.monotonic() < deadline and (like is None or _is_above(sample, like)):
        await asyncio.sleep(0.2)
        sample = await look_at_rest(subject)
    return sample


def _is_above(sample: Sample, like: Sample) -> bool:
    return any(getattr(sample, name) > getattr(like, name) for name in SPARE)


async def _show(run: Run, until: float, show: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(10)
        left = until - time.monotonic()
        show(f"{left:5.0f} s left, {run.ledger.total} requests, {len(run.events)} events,"
             f" {look(run.subject).rss_mib:.0f} MiB")  # fmt: skip
