"""Keeps account, certificates, challenges and the issuer's lock in the store.

What holds keys and tokens is sealed, so that the store alone does not give them away. A record
whose version is raised after each change shows the other processes that there is something to read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from gateway.acme.certificates import Certificate
from gateway.acme.errors import AcmeError
from gateway.oauth.errors import TemporarilyUnavailableError
from gateway.oauth.keys.sealing import Seal, SealError
from gateway.oauth.lease import Lease
from gateway.oauth.models import Clock, Record, RecordStore

ACCOUNT = "acme-account"
CERTIFICATE = "acme-certificate"
CHALLENGE = "acme-challenge"
PLAN = "acme-plan"
REVISION = "acme-revision"
SEAL = "acme-seal"

OWNER = "gateway"
LOCK_TTL_S = 90.0
CHALLENGE_TTL_S = 3600.0
PLAN_TTL_S = 30 * 86400.0
KEPT_EXPIRED_S = 30 * 86400.0
"""How long a certificate is kept after its end: it may be of use while the CA is unavailable."""
SEAL_TTL_S = 120.0
"""How long a seal key counts as in use after it was last seen with an issuer."""
PAGE = 100

Kept = TypeVar("Kept")


class Account(msgspec.Struct, frozen=True):
    """An account at a CA."""

    key: str
    """The private key, a JWK in JSON."""
    url: str
    email: str | None = None

    def __repr__(self) -> str:
        return f"<Account {self.url}>"


class Challenge(msgspec.Struct, frozen=True):
    """A challenge that the CA is about to validate."""

    type: str
    """`http-01` or `tls-alpn-01`."""
    domain: str
    token: str
    key_authorization: str
    """RFC 8555 section 8.1."""


class Plan(msgspec.Struct, frozen=True):
    """The next steps for the certificate of a domain. Times are Unix seconds of the store."""

    renew_at: float = 0.0
    """When to get a certificate; 0 for at once."""
    ask_at: float = 0.0
    """When to ask the CA next when to renew (RFC 9773)."""
    retry_at: float = 0.0
    """Not before this, as attempts have failed."""
    failures: int = 0
    """Attempts that failed in a row."""
    reason: str = ""
    """Of the last failure."""


class AcmeState:
    """The records of ACME. All methods raise `StoreUnavailableError`."""

    def __init__(self, records: RecordStore, seal: Seal, *, wall_clock: Clock = time.time) -> None:
        self._records = records
        self._seal = seal
        self._wall_clock = wall_clock

    async def now(self) -> float:
        """The store's time, Unix seconds."""
        return await self._records.now()

    async def claim(self) -> None:
        """Note that our seal key is in use. Call at least every minute. Raises `AcmeError` where
        another one is: then two replicas differ, or the key was replaced a moment ago.

        What is sealed with another key is as if it were not there: after the key was replaced,
        there are another account and other certificates.
        """
        now, series = await self.now(), self._series()
        record = await self._records.get_record(SEAL, "current")
        if record is not None and record.value != series:
            raise AcmeError(
                "sealed",
                "the records were sealed with another key within the last two minutes: give every "
                "process the same provider.seal_key",
            )
        if record is None or (record.expires_at or 0.0) - now < SEAL_TTL_S / 2:
            await self._records.put_record(Record(SEAL, "current", OWNER, series, now + SEAL_TTL_S))

    def _series(self) -> bytes:
        with _sealing():
            return self._seal.mac(b"acme")[:8]

    def _name(self, directory_id: str, domain: str = "") -> str:
        """The key of a record, which differs with the seal key."""
        return ":".join((self._series().hex(), directory_id, domain))

    async def revision(self) -> int:
        """A number that changes whenever certificates or challenges do."""
        record = await self._records.get_record(REVISION, "current")
        return 0 if record is None else record.version

    async def touch(self) -> None:
        """Have all processes read certificates and challenges again."""
        await self._records.put_record(Record(REVISION, "current", OWNER, b"", None))

    async def account(self, directory_id: str) -> Account | None:
        """Return the account at a CA. Raises `AcmeError` where it can't be unsealed."""
        record = await self._records.get_record(ACCOUNT, self._name(directory_id))
        return None if record is None else self._open(record, Account)

    async def put_account(self, directory_id: str, account: Account) -> None:
        """Keep an account."""
        await self._records.put_record(
            self._close(ACCOUNT, self._name(directory_id), account, None)
        )

    async def delete_account(self, directory_id: str) -> None:
        """Forget an account that the CA does not know any more."""
        await self._records.delete_record(ACCOUNT, self._name(directory_id))

    async def certificate(self, directory_id: str, domain: str) -> Certificate | None:
        """Return the certificate of a domain. Raises `AcmeError` where it can't be unsealed."""
        name = self._name(directory_id, domain)
        record = await self._records.get_record(CERTIFICATE, name)
        return None if record is None else self._open(record, Certificate)

    async def put_certificate(self, directory_id: str, certificate: Certificate) -> None:
        """Keep a certificate in place of the one before, and have all processes read it."""
        key = self._name(directory_id, certificate.domain)
        end = certificate.not_after + KEPT_EXPIRED_S
        await self._records.put_record(self._close(CERTIFICATE, key, certificate, end))
        await self.touch()

    async def delete_certificate(self, directory_id: str, domain: str) -> None:
        """Forget the certificate of a domain, so that another one is issued."""
        await self._records.delete_record(CERTIFICATE, self._name(directory_id, domain))
        await self.touch()

    async def challenges(self, on_error: Callable[[str, AcmeError], None]) -> Sequence[Challenge]:
        """Return the challenges that are to be validated. Those that can't be unsealed are left
        out: `on_error` is called with the domain."""
        found: list[Challenge] = []
        after = ""
        while True:
            page = await self._records.list_records(CHALLENGE, after=after, limit=PAGE)
            for record in page:
                try:
                    found.append(self._open(record, Challenge))
                except AcmeError as error:  # of a seal key that was replaced
                    on_error(record.key, error)
            if len(page) < PAGE:
                return found
            after = page[-1].key

    async def put_challenge(self, challenge: Challenge) -> None:
        """Have all processes serve a challenge."""
        end = await self.now() + CHALLENGE_TTL_S
        await self._records.put_record(self._close(CHALLENGE, challenge.domain, challenge, end))
        await self.touch()

    async def delete_challenge(self, domain: str) -> None:
        """Have no process serve the challenge of a domain any more."""
        if await self._records.delete_record(CHALLENGE, domain):
            await self.touch()

    async def plan(self, directory_id: str, domain: str) -> Plan:
        """Return what is next for a domain."""
        record = await self._records.get_record(PLAN, self._name(directory_id, domain))
        return Plan() if record is None else msgspec.json.decode(record.value, type=Plan)

    async def put_plan(self, directory_id: str, domain: str, plan: Plan) -> None:
        """Keep what is next for a domain."""
        end = max(await self.now(), plan.renew_at, plan.ask_at, plan.retry_at) + PLAN_TTL_S
        key = self._name(directory_id, domain)
        await self._records.put_record(Record(PLAN, key, OWNER, msgspec.json.encode(plan), end))

    def lock(self) -> Lease:
        """Return the lease of the process that gets certificates."""
        return Lease(self._records, "acme-issuer", ttl_s=LOCK_TTL_S, wall_clock=self._wall_clock)

    def _close(self, kind: str, key: str, value: object, expires_at: float | None) -> Record:
        with _sealing():
            sealed = self._seal.close(msgspec.json.encode(value), name=f"{kind}:{key}")
        return Record(kind, key, OWNER, sealed, expires_at)

    def _open(self, record: Record, kind: type[Kept]) -> Kept:
        with _sealing():
            value = self._seal.open(record.value, name=f"{record.kind}:{record.key}")
            return msgspec.json.decode(value, type=kind)


@contextmanager
def _sealing() -> Iterator[None]:
    try:
        yield
    except SealError:
        raise AcmeError(
            "sealed",
            "the record was sealed with another key: give every process the same provider.seal_key",
        ) from None
    except TemporarilyUnavailableError:
        raise AcmeError("sealed", "cannot load provider.seal_key") from None
