"""When certificates are got and renewed, and what becomes of attempts that fail."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from support.acme_issuing import FakeCa
from support.deadlines import scaled, until
from support.provider import Clock
from support.stores.faults import break_store, mend_store

from gateway.acme.errors import REASONS, AcmeError, Reason
from gateway.acme.issuer import Issuer
from gateway.acme.schedule import retry_pause_s
from gateway.acme.settings import AcmeSettings
from gateway.acme.state import AcmeState, Challenge
from gateway.acme.watch import AcmeWatch
from gateway.metrics import Metrics
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.models import StoreUnavailableError
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.store import SqliteStore

NAME, OTHER = "api.gateway.test", "shop.gateway.test"
DAY_S = 86400.0
SETTINGS = AcmeSettings((NAME,), "https://ca.example/directory", "tls-alpn-01")


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = time.time()
    return clock


@pytest.fixture
async def state(tmp_path: Path, clock: Clock) -> AsyncIterator[AcmeState]:
    store = SqliteStore(SqliteFile(tmp_path / "store.db", wall_clock=clock))
    yield AcmeState(store.records, Seal(lambda: b"k" * 32), wall_clock=clock)
    await store.close()


@pytest.fixture
def ca(clock: Clock) -> FakeCa:
    return FakeCa(clock)


def make_issuer(state: AcmeState, ca: FakeCa, settings: AcmeSettings = SETTINGS) -> Issuer:
    return Issuer(
        state, settings, Metrics().acme, make_client=ca.make_client, chance=lambda: 0.5, settle_s=0
    )


def assert_true(value: bool) -> None:
    assert value


async def end_of(state: AcmeState, name: str = NAME) -> float:
    certificate = await state.certificate(SETTINGS.directory_id, name)
    return 0.0 if certificate is None else certificate.not_after


async def test_certificate_is_renewed_after_two_thirds_of_its_life(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    issuer = make_issuer(state, ca)
    await issuer.check()
    first = await end_of(state)
    clock.now += 50 * DAY_S
    await issuer.check()
    assert (ca.issued, await end_of(state)) == ([NAME], first)
    clock.now += 10 * DAY_S
    await issuer.check()
    assert ca.issued == [NAME, NAME]
    assert await end_of(state) > first
    assert ca.replaced[0] is None
    assert ca.replaced[1] is not None  # RFC 9773 section 5


async def test_ca_decides_when_to_renew_and_when_to_be_asked_again(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    ca.renew_at, ca.ask_in_s = clock.now + 20 * DAY_S, 3600
    issuer = make_issuer(state, ca)
    await issuer.check()
    assert ca.asked == 1
    clock.now += 3500
    await issuer.check()
    assert ca.asked == 1
    clock.now += 200
    ca.renew_at = clock.now - 1  # the CA is about to revoke it
    await issuer.check()
    assert (ca.asked, ca.issued) == (2, [NAME])
    await issuer.check()
    assert ca.issued == [NAME, NAME]


async def test_suggestion_of_the_ca_can_not_cause_a_loop(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    ca.renew_at = clock.now - 1
    issuer = make_issuer(state, ca)
    for _ in range(5):
        await issuer.check()
        clock.now += 60
    assert ca.issued == [NAME]


async def test_without_renewal_information_the_plan_stays(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    issuer = make_issuer(state, ca)
    await issuer.check()
    planned = (await state.plan(SETTINGS.directory_id, NAME)).renew_at
    ca.failing["renewal_time"] = AcmeError("unreachable", "no response")
    clock.now += DAY_S
    await issuer.check()
    plan = await state.plan(SETTINGS.directory_id, NAME)
    assert (plan.renew_at, plan.failures) == (planned, 0)
    assert clock.now < plan.ask_at <= clock.now + 3600


@pytest.mark.parametrize("reason", REASONS)
async def test_attempts_that_fail_are_repeated_ever_more_rarely(
    state: AcmeState, ca: FakeCa, clock: Clock, reason: Reason
) -> None:
    issuer = make_issuer(state, ca)
    ca.failing["order"] = AcmeError(reason, "it failed")
    began, times = clock.now, []
    while clock.now < began + 2 * DAY_S:
        before = ca.attempts
        await issuer.check()
        if ca.attempts > before:
            times.append(clock.now - began)
        plan = await state.plan(SETTINGS.directory_id, NAME)
        clock.now = max(clock.now, plan.retry_at)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert len(times) > 2
    del ca.failing["order"]
    await issuer.check()
    assert ca.issued == [NAME]
    assert (await state.plan(SETTINGS.directory_id, NAME)).failures == 0


def test_failed_validations_keep_within_the_limit_of_lets_encrypt() -> None:
    for chance in (lambda: 0.0, lambda: 0.999):
        at, within_an_hour = 0.0, 1
        for failures in range(1, 20):
            at += retry_pause_s(AcmeError("challenge", ""), failures, chance)
            within_an_hour += at < 3600
        assert within_an_hour <= 5


def test_ca_is_given_the_time_that_it_asks_for() -> None:
    error = AcmeError("rate_limited", "", retry_after_s=7200)
    assert retry_pause_s(error, 1, random.random) >= 7200
    error.retry_after_s = 1e12
    assert retry_pause_s(error, 1, random.random) <= 7 * DAY_S


async def test_another_process_does_not_try_again_at_once(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    ca.failing["finish"] = AcmeError("challenge", "connection refused")
    await make_issuer(state, ca).check()
    await make_issuer(state, ca).check()
    assert ca.attempts == 1


async def test_ca_that_is_down_is_asked_once_for_all_names(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    ca.failing["open"] = AcmeError("unreachable", "no response")
    settings = AcmeSettings((NAME, OTHER), SETTINGS.directory, "tls-alpn-01")
    await make_issuer(state, ca, settings).check()
    for name in settings.domains:
        plan = await state.plan(settings.directory_id, name)
        assert (plan.failures, plan.reason) == (1, "unreachable")


async def test_name_that_is_rejected_does_not_keep_others_from_theirs(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    def reject(challenge: Challenge | None) -> None:
        assert challenge is not None
        if challenge.domain == NAME:
            raise AcmeError("challenge", "no such name")

    ca.seen = reject
    settings = AcmeSettings((NAME, OTHER), SETTINGS.directory, "tls-alpn-01")
    await make_issuer(state, ca, settings).check()
    assert ca.issued == [OTHER]
    assert await state.challenges(lambda domain, error: pytest.fail(str(error))) == []


async def test_challenge_that_was_sealed_with_a_replaced_key_keeps_no_other_from_being_served(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "store.db", wall_clock=clock))
    old = AcmeState(store.records, Seal(lambda: b"o" * 32), wall_clock=clock)
    new = AcmeState(store.records, Seal(lambda: b"n" * 32), wall_clock=clock)
    await old.put_challenge(Challenge("http-01", NAME, "t", "t.old"))
    current = Challenge("http-01", OTHER, "u", "u.new")
    await new.put_challenge(current)
    served: list[Sequence[Challenge]] = []

    async def serve(challenges: Sequence[Challenge]) -> None:
        served.append(challenges)

    async def ignore(certificates: object) -> None:
        pass

    metrics = Metrics().acme
    watch = AcmeWatch(new, SETTINGS, metrics, on_certificates=ignore, on_challenges=serve)
    await watch.look()
    assert served == [[current]]
    assert metrics.failures["sealed"] == 1
    assert f"cannot load the challenge of {NAME} from the store" in caplog.text
    await store.close()


async def test_old_certificate_stays_where_the_new_one_can_not_be_used(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    issuer = make_issuer(state, ca)
    await issuer.check()
    first = await end_of(state)
    ca.options = {"must_staple": True}
    clock.now += 70 * DAY_S
    await issuer.check()
    assert await end_of(state) == first
    plan = await state.plan(SETTINGS.directory_id, NAME)
    assert (plan.failures, plan.reason) == (1, "certificate")


async def test_seal_key_that_was_replaced_begins_another_series(
    state: AcmeState, ca: FakeCa, clock: Clock, tmp_path: Path
) -> None:
    await make_issuer(state, ca).check()
    store = SqliteStore(SqliteFile(tmp_path / "store.db", wall_clock=clock))
    other = AcmeState(store.records, Seal(lambda: b"other" * 8), wall_clock=clock)
    clock.now += 121  # since the last process with the key before was seen
    issuer = make_issuer(other, ca)
    await issuer.check()
    await issuer.check()
    assert ca.issued == [NAME, NAME]
    assert await end_of(other) > clock.now
    await store.close()


async def test_of_two_processes_at_once_one_issues(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    one, other = make_issuer(state, ca), make_issuer(state, ca)
    may_finish = threading.Event()
    ca.seen = lambda challenge: assert_true(may_finish.wait(scaled()))
    issuing = asyncio.create_task(one.check())
    await until(lambda: ca.is_in_use)
    await other.check()
    assert ca.issued == []
    assert (await state.plan(SETTINGS.directory_id, NAME)).failures == 0
    may_finish.set()
    await issuing
    assert ca.issued == [NAME]
    await asyncio.gather(one.check(), other.check())
    assert (ca.issued, ca.asked) == ([NAME], 1)


async def test_lock_of_a_process_that_died_ends(state: AcmeState, ca: FakeCa, clock: Clock) -> None:
    lock = state.lock()
    assert await lock.acquire()
    issuer = make_issuer(state, ca)
    await issuer.check()
    assert ca.issued == []
    clock.now += lock.ttl_s + 1
    await issuer.check()
    assert ca.issued == [NAME]
    assert not await lock.extend()
    await lock.release()  # which is no longer ours


async def test_certificate_is_written_once_the_store_is_back(
    state: AcmeState, ca: FakeCa, clock: Clock, tmp_path: Path
) -> None:
    ca.seen = lambda challenge: break_store(tmp_path / "store.db")
    issuer = make_issuer(state, ca)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await issuer.check()
    mend_store(tmp_path / "store.db")
    clock.now += 100  # the lock could not be released
    await issuer.check()
    assert ca.issued == [NAME]
    assert await end_of(state) > clock.now


async def test_account_that_the_ca_lost_is_registered_again(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    issuer = make_issuer(state, ca)
    await issuer.check()
    assert await state.account(SETTINGS.directory_id) is not None
    ca.failing["order"] = AcmeError("rejected", "unknown", code="accountDoesNotExist")
    clock.now += 70 * DAY_S
    await issuer.check()
    assert await state.account(SETTINGS.directory_id) is None
    del ca.failing["order"]
    clock.now += 3600
    await issuer.check()
    assert ca.issued == [NAME, NAME]


async def test_certificates_of_staging_and_production_are_apart(
    state: AcmeState, ca: FakeCa, clock: Clock
) -> None:
    issuer = make_issuer(state, ca)
    await issuer.check()
    issuer.reconfigure(AcmeSettings((NAME,), "https://staging.example/", "tls-alpn-01"))
    await issuer.check()
    assert ca.issued == [NAME, NAME]
    issuer.reconfigure(SETTINGS)
    await issuer.check()
    assert ca.issued == [NAME, NAME]


async def test_keys_are_not_readable_in_the_store_nor_with_another_secret(
    state: AcmeState, ca: FakeCa, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await make_issuer(state, ca).check()
    content = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    certificate = await state.certificate(SETTINGS.directory_id, NAME)
    assert certificate is not None
    assert certificate.key.splitlines()[1].encode() not in content
    assert b"PRIVATE KEY" not in content
    store = SqliteStore(SqliteFile(tmp_path / "store.db", wall_clock=clock))
    other = AcmeState(store.records, Seal(lambda: b"other" * 8), wall_clock=clock)
    metrics = Metrics().acme
    issuer = Issuer(other, SETTINGS, metrics, make_client=ca.make_client)
    await issuer.check()
    await issuer.check()
    await store.close()
    assert metrics.failures["sealed"] == 2
    assert [line.message for line in caplog.records if "provider.seal_key" in line.message] == [
        "cannot get certificates: the records were sealed with another key within the last two "
        "minutes: give every process the same provider.seal_key"
    ]
    assert ca.issued == [NAME]
