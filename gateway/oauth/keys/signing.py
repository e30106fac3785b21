"""The keys that sign our JWTs: one for each period, in the store, the same for all processes.

Time is cut into periods of `rotate_every_s`. The process that needs the key of a period first makes
it; the store keeps the first one and all processes use that. The key of the next period is
published before it signs, and the one of the last period for as long as a token of it can
live (RFC 7517, RFC 9068 section 4). Private halves are sealed.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gateway.oauth.errors import TemporarilyUnavailableError
from gateway.oauth.jose import sign_jwt
from gateway.oauth.keys.sealing import Seal, SealError
from gateway.oauth.models import Clock, Record, RecordStore

if TYPE_CHECKING:
    from joserfc.jwk import Key

SIGNING_KEY = "signing-key"
PUBLISH_AHEAD_S = 86400.0
"""How long before its period a key is published, or half a period if that is less."""
PUBLISHED_FOR_S = 10.0
"""How long a process believes that no other has made a key."""
MARGIN_S = 3600.0
"""How much longer than its tokens live a key stays published: clocks differ."""

SigningAlgorithm = Literal["ES256", "EdDSA"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SigningPolicy:
    """How our JWTs are signed."""

    algorithm: SigningAlgorithm
    rotate_every_s: float
    token_ttl_s: float
    """The longest that a token may live after its key has been replaced."""


@dataclass(frozen=True, slots=True)
class _KeptKey:
    """A key as the store keeps it."""

    public: dict[str, Any]
    sealed: str = field(repr=False)


class SigningKeys:
    """Signs access tokens, and publishes the keys to verify them by."""

    def __init__(
        self,
        records: RecordStore,
        seal: Seal,
        policy: SigningPolicy,
        *,
        wall_clock: Clock = time.time,
    ) -> None:
        self._records = records
        self._seal = seal
        self._policy = policy
        self._wall_clock = wall_clock
        self._loading = asyncio.Lock()
        self._private: dict[str, Key] = {}
        self._published: list[dict[str, Any]] = []
        self._published_until = 0.0

    def reconfigure(self, policy: SigningPolicy) -> None:
        """Sign in another way from now on."""
        self._policy = policy
        self._published_until = 0.0

    async def sign_access_token(self, claims: Mapping[str, Any]) -> str:
        """A JWT of type `at+jwt` (RFC 9068 section 2.1).

        Raises `TemporarilyUnavailableError` where the key of this period was sealed with another
        secret, and `StoreUnavailableError`.
        """
        period = int(self._wall_clock() // self._policy.rotate_every_s)
        key = self._private.get(self._name(period)) or await self._load(period)
        header = {"alg": self._policy.algorithm, "typ": "at+jwt", "kid": key.kid}
        return sign_jwt(header, claims, key)

    async def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517 section 5). Raises `StoreUnavailableError`."""
        now = self._wall_clock()
        if self._is_due(now):
            async with self._loading:
                if self._is_due(now):
                    await self._publish(now)
        return {"keys": self._published}

    def _is_due(self, now: float) -> bool:
        # Also where the wall clock went back.
        return not self._published_until - PUBLISHED_FOR_S <= now < self._published_until

    async def _publish(self, now: float) -> None:
        every_s = self._policy.rotate_every_s
        ahead_s = min(PUBLISH_AHEAD_S, every_s / 2)
        for period in sorted({int(now // every_s), int((now + ahead_s) // every_s)}):
            await self._find_or_make(period)
        records = await self._records.list_records(SIGNING_KEY)
        self._published = [_read(record).public for record in records]
        self._published_until = now + PUBLISHED_FOR_S

    async def _load(self, period: int) -> Key:
        async with self._loading:
            name = self._name(period)
            if name not in self._private:
                record = await self._find_or_make(period)
                # Earlier keys sign nothing any more.
                self._private = {name: self._open(record)}
            return self._private[name]

    async def _find_or_make(self, period: int) -> Record:
        name = self._name(period)
        while True:
            if record := await self._records.get_record(SIGNING_KEY, name):
                return record
            await self._records.add_record(self._make(name, period))

    def _make(self, name: str, period: int) -> Record:
        from joserfc.jwk import ECKey, OKPKey

        key: Key
        if self._policy.algorithm == "ES256":
            key = ECKey.generate_key("P-256")
        else:
            key = OKPKey.generate_key("Ed25519")
        public = {
            **key.as_dict(private=False),
            "kid": key.thumbprint(),
            "use": "sig",
            "alg": self._policy.algorithm,
        }
        private = msgspec.json.encode({**key.as_dict(private=True), "kid": public["kid"]})
        sealed = base64.b64encode(self._seal.close(private, name=name)).decode("ascii")
        end = (period + 1) * self._policy.rotate_every_s
        return Record(
            kind=SIGNING_KEY,
            key=name,
            owner="provider",
            value=msgspec.json.encode(_KeptKey(public, sealed)),
            expires_at=end + self._policy.token_ttl_s + MARGIN_S,
        )

    def _open(self, record: Record) -> Key:
        from joserfc.jwk import JWKRegistry

        kept = _read(record)
        try:
            private = self._seal.open(base64.b64decode(kept.sealed), name=record.key)
        except SealError:
            _log.error(
                "the signing key %s was sealed with another key: give every process the same "
                "provider.seal_key",
                record.key,
            )
            raise TemporarilyUnavailableError(reason="signing_key_sealed") from None
        return JWKRegistry.import_key(msgspec.json.decode(private, type=dict[str, Any]))

    def _name(self, period: int) -> str:
        return f"{self._policy.algorithm}:{int(self._policy.rotate_every_s)}:{period:08d}"


def _read(record: Record) -> _KeptKey:
    return msgspec.json.decode(record.value, type=_KeptKey)


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """A signing key without its private half."""

    key_id: str
    algorithm: str
    state: Literal["next", "signs", "verifies"]
    signs_from: float
    """Unix time, seconds, as the others."""
    signs_until: float
    published_until: float
    public: dict[str, Any]


async def describe_keys(records: RecordStore, now: float) -> list[KeyDescription]:
    """Describe the keys in a store, the newest first. Raises `StoreUnavailableError`."""
    found = []
    for record in await records.list_records(SIGNING_KEY):
        algorithm, every, period = record.key.split(":")
        start, end = int(period) * int(every), (int(period) + 1) * int(every)
        public = _read(record).public
        state: Literal["next", "signs", "verifies"] = (
            "next" if now < start else "signs" if now < end else "verifies"
        )
        found.append(
            KeyDescription(
                public["kid"], algorithm, state, start, end, record.expires_at or end, public
            )
        )
    return sorted(found, key=lambda key: key.signs_from, reverse=True)
