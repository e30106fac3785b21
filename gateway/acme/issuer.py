"""Gets certificates and renews them: one process at a time, over all workers and replicas.

A round looks at what is due. Where something is, the lock in the store is taken, and requests to
the CA are made in a thread. The result is kept in the store, from where every process takes it
(`watch`). A certificate that was issued while the store is unavailable is kept here until it can be
written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from gateway.acme.certificates import (
    Certificate,
    check_chain,
    make_key,
    make_request,
    renewal_id,
)
from gateway.acme.errors import AcmeError
from gateway.acme.schedule import ASK_S, LONGEST_ASK_S, Chance, renewal_time, retry_pause_s
from gateway.acme.settings import AcmeSettings
from gateway.acme.state import Account, AcmeState, Plan
from gateway.metrics.acme import AcmeMetrics
from gateway.oauth.lease import Lease
from gateway.oauth.models import StoreUnavailableError

if TYPE_CHECKING:
    from gateway.acme.client import AcmeClient, MakeClient

SETTLE_S = 2.5
"""How long every process has to learn of a challenge before the CA looks for it."""
SHORTEST_ASK_S = 60.0
ASK_AGAIN_S = 3600.0
"""When to ask for renewal information again after that failed."""
SHORTEST_LIFE = 1 / 10
"""The part of its lifetime for which a new certificate is kept, whatever the CA suggests."""
CA_WIDE = frozenset({"unreachable", "rate_limited", "sealed"})
"""Reasons that hold for every name: the others are not tried either."""

Result = TypeVar("Result")
Step = Literal["issue", "ask"]

_log = logging.getLogger(__name__)


class _Name:
    """The certificate of a domain, as far as it is known, and the plan for it."""

    def __init__(self, certificate: Certificate | None, plan: Plan) -> None:
        self.certificate = certificate
        self.plan = plan

    def due(self, now: float) -> Step | None:
        """Return what is to be done at `now`."""
        certificate, plan = self.certificate, self.plan
        if now < plan.retry_at:
            return None
        if certificate is None or certificate.not_after <= now:
            return "issue"
        if plan.renew_at and now >= plan.renew_at:
            return "issue"
        return "ask" if not plan.renew_at or now >= plan.ask_at else None


class Issuer:
    """Keeps the certificates of all names. Call `check` every few seconds."""

    def __init__(
        self,
        state: AcmeState,
        settings: AcmeSettings,
        metrics: AcmeMetrics,
        *,
        make_client: MakeClient | None = None,
        chance: Chance = random.random,
        settle_s: float = SETTLE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._state = state
        self._settings = settings
        self._metrics = metrics
        self._make_client = make_client
        self._chance = chance
        self._settle_s = settle_s
        self._sleep = sleep
        self._names: dict[str, _Name] = {}
        self._revision = -1
        self._unsaved: dict[str, Certificate] = {}
        self._reported = ""

    def reconfigure(self, settings: AcmeSettings) -> None:
        """Apply other settings from the next round on."""
        if settings.directory != self._settings.directory:
            self._unsaved.clear()
        self._settings = settings
        self._revision = -1

    async def check(self) -> None:
        """Do what is due now. Raises `StoreUnavailableError`."""
        try:
            await self._state.claim()
            await self._save()
            now = await self._read()
            if not any(name.due(now) for name in self._names.values()):
                return
            lock = self._state.lock()
            if await lock.acquire():
                async with self._holding(lock):
                    await self._work(lock)
        except AcmeError as error:  # of the records
            self._count(error)
            if str(error) != self._reported:
                _log.error("cannot get certificates: %s", error)
            self._reported = str(error)
        else:
            self._reported = ""

    async def _read(self) -> float:
        """Read what may have changed, and return the time of the store."""
        state, settings = self._state, self._settings
        now, revision = await state.now(), await state.revision()
        is_changed = revision != self._revision
        names: dict[str, _Name] = {}
        for domain in settings.domains:
            known = self._names.get(domain)
            # Another process may have done what looks due here.
            if is_changed or known is None or known.due(now):
                known = await self._read_name(domain)
            names[domain] = known
        self._names, self._revision = names, revision
        self._measure(now)
        return now

    async def _read_name(self, domain: str) -> _Name:
        directory_id = self._settings.directory_id
        certificate = await self._state.certificate(directory_id, domain)
        return _Name(certificate, await self._state.plan(directory_id, domain))

    def _measure(self, now: float) -> None:
        valid = [one.certificate for one in self._names.values()]
        missing = sum(one is None or one.not_after <= now for one in valid)
        self._metrics.missing.set(missing)
        self._metrics.overdue.set(sum(one.plan.failures > 0 for one in self._names.values()))

    @contextlib.asynccontextmanager
    async def _holding(self, lock: Lease) -> AsyncIterator[None]:
        extending = asyncio.create_task(_keep(lock))
        try:
            yield
        finally:
            extending.cancel()
            await asyncio.gather(extending, return_exceptions=True)
            with contextlib.suppress(StoreUnavailableError):
                await lock.release()

    async def _work(self, lock: Lease) -> None:
        client: AcmeClient | None = None
        settings, domains = self._settings, list(self._names)
        try:
            for at, domain in enumerate(domains):
                if not lock.is_held or settings is not self._settings:
                    return
                name = self._names[domain] = await self._read_name(domain)
                step = name.due(await self._state.now())
                if step is None:
                    continue
                try:
                    if client is None:
                        client = await self._open()
                    await self._do(step, client, domain, name)
                except AcmeError as error:
                    if error.code == "accountDoesNotExist":
                        await self._state.delete_account(settings.directory_id)
                        await _close(client)
                        client = None
                    is_for_all = error.reason in CA_WIDE
                    await self._fail(domains[at:] if is_for_all else [domain], error)
                    if is_for_all:
                        return
        finally:
            await _close(client)
            self._measure(await self._state.now())

    async def _open(self) -> AcmeClient:
        directory_id = self._settings.directory_id
        account = await self._state.account(directory_id)
        client = await _in_thread(lambda: self._make(account))
        try:
            opened = await _in_thread(client.open)
            if opened != account:
                await self._state.put_account(directory_id, opened)
        except BaseException:
            client.close()
            raise
        return client

    def _make(self, account: Account | None) -> AcmeClient:
        if self._make_client is None:
            from gateway.acme.client import AcmeClient

            return AcmeClient(self._settings, account)
        return self._make_client(self._settings, account)

    async def _do(self, step: Step, client: AcmeClient, domain: str, name: _Name) -> None:
        certificate = name.certificate
        if step == "issue" or certificate is None:
            certificate = await self._issue(client, domain, certificate)
            self._unsaved[domain] = certificate
            self._metrics.issued.inc()
            _log.info(
                "certificate of %s issued by %s, valid until %s",
                domain,
                self._settings.directory,
                time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(certificate.not_after)),
            )
            await self._save()
            name.certificate = certificate
        plan = await self._plan(client, certificate, name.plan, is_new=step == "issue")
        name.plan = plan
        await self._state.put_plan(self._settings.directory_id, domain, plan)
        if step == "issue":
            await self._state.touch()  # for the plan, which others read with the certificate

    async def _issue(
        self, client: AcmeClient, domain: str, previous: Certificate | None
    ) -> Certificate:
        key = await _in_thread(make_key)
        replaces = None
        if previous is not None and previous.not_after > await self._state.now():
            replaces = renewal_id(previous.chain)
        request = make_request(domain, key)
        order = await _in_thread(lambda: client.order(domain, request, replaces=replaces))
        if order.challenge is None:
            chain = await _in_thread(lambda: client.finish(order))
        else:
            await self._state.put_challenge(order.challenge)
            try:
                await self._sleep(self._settle_s)
                chain = await _in_thread(lambda: client.finish(order))
            finally:
                with contextlib.suppress(StoreUnavailableError):
                    await self._state.delete_challenge(domain)
        return check_chain(domain, chain, key, now=await self._state.now())

    async def _plan(
        self, client: AcmeClient, certificate: Certificate, before: Plan, *, is_new: bool
    ) -> Plan:
        now = await self._state.now()
        renew_at, ask_in_s = None, ASK_S
        try:
            renew_at, ask_in_s = await _in_thread(lambda: client.renewal_time(certificate.chain))
        except AcmeError as error:
            self._count(error)
            _log.warning("no renewal information for %s: %s", certificate.domain, error)
            ask_in_s = ASK_AGAIN_S
        if renew_at is None:
            is_planned = before.renew_at and not is_new
            renew_at = before.renew_at if is_planned else renewal_time(certificate, self._chance)
        if is_new:
            lifetime_s = certificate.not_after - certificate.not_before
            renew_at = max(renew_at, now + lifetime_s * SHORTEST_LIFE)
        return Plan(renew_at, now + min(max(ask_in_s, SHORTEST_ASK_S), LONGEST_ASK_S))

    async def _save(self) -> None:
        """Write what was issued and could not be written."""
        for domain, certificate in tuple(self._unsaved.items()):
            await self._state.put_certificate(self._settings.directory_id, certificate)
            del self._unsaved[domain]

    async def _fail(self, domains: Sequence[str], error: AcmeError) -> None:
        self._count(error)
        now = await self._state.now()
        for at, domain in enumerate(domains):
            name = self._names[domain]
            if name.due(now) is None:
                continue
            failures = name.plan.failures + 1
            pause_s = retry_pause_s(error, failures, self._chance)
            name.plan = msgspec.structs.replace(
                name.plan, failures=failures, retry_at=now + pause_s, reason=error.reason
            )
            await self._state.put_plan(self._settings.directory_id, domain, name.plan)
            if at == 0:
                _log.error(
                    "no certificate for %s (attempt %d): %s; next attempt in %.0f s%s",
                    domain,
                    failures,
                    error,
                    pause_s,
                    f", as for {len(domains) - 1} other names" if len(domains) > 1 else "",
                )

    def _count(self, error: AcmeError) -> None:
        self._metrics.failures[error.reason] += 1


async def _keep(lock: Lease) -> None:
    while True:
        await asyncio.sleep(lock.ttl_s / 3)
        with contextlib.suppress(StoreUnavailableError):
            if not await lock.extend():
                return


async def _close(client: AcmeClient | None) -> None:
    if client is not None:
        await asyncio.to_thread(client.close)


async def _in_thread(call: Callable[[], Result]) -> Result:
    """Call what blocks. An error that nothing here knows is one of the attempt."""
    try:
        return await asyncio.to_thread(call)
    except (AcmeError, asyncio.CancelledError):
        raise
    except Exception as error:
        _log.exception("an ACME request failed")
        raise AcmeError("internal", f"{type(error).__name__}") from None
