"""Clients that a configuration declares: brought into the store, and kept as declared.

Each belongs to an *owner*, a label of the configuration. All gateways of one owner are expected to
declare the same clients. One of them at a time, by a lease in the store, makes the store like its
declaration: at its start, and when its declaration changes. Where another one has declared others
since, that is reported and left alone, so that two never undo each other's changes in turns.

A client that is no longer declared is disabled: it gets no tokens, and those that it has are
revoked. As any client that has expired, it is deleted later, and is good again where it is declared
before that.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from gateway.oauth.client_metadata import ClientMetadata, metadata_of
from gateway.oauth.clients import ClientRegistry
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.lease import Lease
from gateway.oauth.models import (
    Client,
    ClientExistsError,
    Clock,
    Record,
)
from gateway.oauth.users.tokens import USER
from gateway.rate_limit import RateLimit

DECLARATION = "declared-clients"
IN_PROGRESS = ""
LEASE_S = 30.0
LEASE_POLL_S = 0.5
ATTEMPTS = 5

Done = Literal["created", "adopted", "changed", "disabled", "enabled", "replaced"]


@dataclass(frozen=True, slots=True)
class DeclaredSecret:
    """A secret in clear, as a file holds it, or as a hash."""

    secret: str | None = field(default=None, repr=False)
    secret_hash: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class DeclaredClient:
    """A client as a configuration declares it."""

    client_id: str
    client_name: str
    scopes: tuple[str, ...]
    metadata: ClientMetadata = field(hash=False)
    secret: DeclaredSecret | None = None
    """None for a client that proves who it is in another way."""
    previous_secret: DeclaredSecret | None = None
    rate_limit: RateLimit | None = None

    def fingerprint(self) -> bytes:
        """Return what distinguishes it, secrets left out: a digest in the store must not help to
        guess them."""
        shown = (
            self.client_id,
            self.client_name,
            self.scopes,
            self.metadata.stored(),
            self.rate_limit,
            self.secret is not None,
            self.previous_secret is not None,
        )
        return msgspec.json.encode(shown, order="deterministic")


@dataclass(frozen=True, slots=True)
class ClientAction:
    """A change of one client."""

    done: Done
    client_id: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The outcome of one reconciliation."""

    actions: tuple[ClientAction, ...] = ()
    conflicts: tuple[str, ...] = ()
    """Why clients could not be brought into the store, one text for each."""
    is_overridden: bool = False
    """Whether another gateway of the same owner has declared others since."""


class LeaseLostError(Exception):
    """Another process has taken the lease, since this one took too long."""


class _Declaration(msgspec.Struct, frozen=True):
    """The clients that were brought into the store last."""

    digest: str
    client_ids: list[str]


class ClientReconciler:
    """Makes the store like a declaration."""

    def __init__(
        self,
        registry: ClientRegistry,
        hasher: SecretHasher,
        *,
        wall_clock: Clock = time.time,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._hasher = hasher
        self._wall_clock = wall_clock
        self._clock = clock
        self._sleep = sleep
        self._hashes: dict[tuple[str, str], tuple[str, str]] = {}
        """Secrets that were found right, with their hashes, by client: not hashed again."""
        self._held_since = 0.0
        self._last: tuple[str, tuple[DeclaredClient, ...]] | None = None
        self._digest = ""

    async def reconcile(self, owner: str, declared: Sequence[DeclaredClient]) -> Reconciled:
        """Bring the clients into the store, where this process declares others than before, or
        is the last that declared some. Raises `StoreUnavailableError`,
        `TemporarilyUnavailableError` and `LeaseLostError`."""
        mine = owner, tuple(declared)
        digest = await asyncio.to_thread(_digest, mine[1])  # of thousands, perhaps
        lease = await self._acquire(owner)
        try:
            before = await self._read(owner)
            is_mine = before is None or before.digest in {IN_PROGRESS, digest}
            if mine == self._last and not is_mine:
                return Reconciled(is_overridden=True)
            reconciled = await self._apply(owner, declared, before, lease, digest)
            self._last, self._digest = mine, digest
            return reconciled
        finally:
            await lease.release()

    async def is_overridden(self) -> bool:
        """Whether another gateway has declared other clients of the same owner since. Raises
        `StoreUnavailableError`."""
        if self._last is None:
            return False
        now = await self._read(self._last[0])
        return now is not None and now.digest not in {IN_PROGRESS, self._digest}

    async def _apply(
        self,
        owner: str,
        declared: Sequence[DeclaredClient],
        before: _Declaration | None,
        lease: Lease,
        digest: str,
    ) -> Reconciled:
        names = [client.client_id for client in declared]
        old = before.client_ids if before is not None else []
        # First: whatever is made from here on is known, should this process end.
        await self._write(owner, IN_PROGRESS, sorted({*old, *names}))
        actions, conflicts, kept = [], [], []
        for client in declared:
            await self._keep(lease)
            try:
                action = await self._bring(owner, client)
            except _ConflictError as error:
                conflicts.append(str(error))
                if client.client_id in old:  # to be disabled once it is declared no more
                    kept.append(client.client_id)
                continue
            kept.append(client.client_id)
            if action is not None:
                actions.append(action)
        for client_id in sorted(set(old) - set(names)):
            await self._keep(lease)
            is_resumed = before is not None and before.digest == IN_PROGRESS
            state = await self._disable(owner, client_id, is_resumed=is_resumed)
            if state is not None:
                kept.append(client_id)
                actions += [state] if isinstance(state, ClientAction) else []
        await self._write(owner, digest, sorted(kept))
        self._hashes = {one: known for one, known in self._hashes.items() if one[0] in kept}
        return Reconciled(tuple(actions), tuple(conflicts))

    async def _bring(self, owner: str, declared: DeclaredClient) -> ClientAction | None:
        """Make one client as declared. Raises `_ConflictError`."""
        client_id = declared.client_id
        if await self._store.records.get_record(USER, client_id) is not None:
            # RFC 9700 section 4.15: a client must not pass for a user by its id.
            raise _ConflictError(f"client {client_id!r}: a user has this name")
        for _ in range(ATTEMPTS):
            old = await self._store.clients.get_client(client_id)
            wanted = await self._wanted(owner, declared, old)
            if old is None:
                try:
                    await self._store.clients.add_client(wanted)
                except ClientExistsError:
                    continue
                return await self._brought(wanted, "created")
            metadata = metadata_of(old)
            if metadata.managed_by not in {None, owner}:
                raise _ConflictError(
                    f"client {client_id!r} is declared under clients_owner "
                    f"{metadata.managed_by!r}, too"
                )
            if metadata.registered_by is not None:
                # Its client keeps nothing: neither tokens nor the way to manage it.
                await self._store.clients.replace_client(wanted)
                return await self._brought(wanted, "replaced", "it had registered itself")
            if changes := _differences(old, wanted):
                if not await self._change(old, wanted):
                    continue
                done: Done = "adopted" if metadata.managed_by is None else "changed"
                if metadata.disabled_at is not None:
                    done = "enabled"
                return await self._brought(wanted, done, ", ".join(changes))
            return None
        raise _ConflictError(f"client {client_id!r} is changed by others all the time")

    async def _brought(self, client: Client, done: Done, detail: str = "") -> ClientAction:
        await self._registry.browser_origins.enter(client)
        return ClientAction(done, client.client_id, detail)

    async def _change(self, old: Client, wanted: Client) -> bool:
        """Change what differs; False where the client was changed meanwhile."""
        clients = self._store.clients
        changed = replace(wanted, secret_hash=old.secret_hash, rate_limit=old.rate_limit)
        updated: Client | None = old
        if _described(old) != _described(changed):
            updated = await clients.update_client(changed, generation=old.generation)
        if updated is None:
            return False
        if wanted.secret_hash != old.secret_hash:
            await clients.set_client_secret(old.client_id, wanted.secret_hash)
        if wanted.rate_limit != old.rate_limit:
            await clients.set_client_rate_limit(old.client_id, wanted.rate_limit)
        return True

    async def _wanted(self, owner: str, declared: DeclaredClient, old: Client | None) -> Client:
        """The client as the store should have it."""
        now = self._wall_clock()
        known = metadata_of(old) if old is not None else ClientMetadata()
        secret = await self._hash(
            declared.secret, old.secret_hash if old else "", declared, "current"
        )
        previous = await self._hash(
            declared.previous_secret, known.previous_secret_hash or "", declared, "previous"
        )
        metadata = replace(
            declared.metadata, managed_by=owner, previous_secret_hash=previous or None
        )
        return Client(
            client_id=declared.client_id,
            client_name=declared.client_name,
            secret_hash=secret,
            scopes=declared.scopes,
            created_at=old.created_at if old is not None else now,
            expires_at=None,
            generation=old.generation if old is not None else int(now * 1_000_000),
            metadata=metadata.stored(),
            rate_limit=declared.rate_limit,
        )

    async def _hash(
        self, declared: DeclaredSecret | None, known: str, client: DeclaredClient, which: str
    ) -> str:
        """The hash to keep: the known one, where it is of the same secret."""
        if declared is None:
            return ""
        if declared.secret is None:
            return declared.secret_hash
        place = client.client_id, which
        seen = self._hashes.get(place)
        if seen == (declared.secret, known):
            return known
        secret_hash = known
        if not known or not await self._hasher.verify(declared.secret, known):
            secret_hash = await self._hasher.hash(declared.secret)
        self._hashes[place] = declared.secret, secret_hash
        return secret_hash

    async def _disable(
        self, owner: str, client_id: str, *, is_resumed: bool
    ) -> ClientAction | bool | None:
        """Disable a client; True where that was done before, None where it is not the owner's.
        `is_resumed` where another process began, and ended before it came to the end."""
        for _ in range(ATTEMPTS):
            client = await self._store.clients.get_client(client_id)
            if client is None or metadata_of(client).managed_by != owner:
                return None
            metadata = metadata_of(client)
            if metadata.disabled_at is not None:
                if is_resumed:  # that process may not have come to the tokens
                    await self._registry.revoke_client_tokens(client_id)
                return True
            now = self._wall_clock()
            disabled = await self._store.clients.update_client(
                replace(
                    client,
                    expires_at=now,
                    metadata=replace(metadata, disabled_at=now).stored(),
                ),
                generation=client.generation,
            )
            if disabled is not None:
                revoked = await self._registry.revoke_client_tokens(client_id)
                return ClientAction("disabled", client_id, f"{revoked or 0} live tokens revoked")
        return True  # changed by others all the time; the next reconciliation comes by again

    async def _read(self, owner: str) -> _Declaration | None:
        record = await self._store.records.get_record(DECLARATION, owner)
        return None if record is None else msgspec.json.decode(record.value, type=_Declaration)

    async def _write(self, owner: str, digest: str, client_ids: list[str]) -> None:
        value = msgspec.json.encode(_Declaration(digest, client_ids))
        await self._store.records.put_record(Record(DECLARATION, owner, "", value, None))

    async def _acquire(self, owner: str) -> Lease:
        """Wait until no other process reconciles the clients of this owner."""
        name = f"{DECLARATION} {owner}"
        lease = Lease(self._store.records, name, ttl_s=LEASE_S, wall_clock=self._wall_clock)
        while not await lease.acquire():
            await self._sleep(LEASE_POLL_S)
        self._held_since = self._clock()
        return lease

    async def _keep(self, lease: Lease) -> None:
        """Extend the lease, where a part of it has passed. Raises `LeaseLostError`."""
        if self._clock() - self._held_since >= LEASE_S / 3:
            if not await lease.extend():
                raise LeaseLostError
            self._held_since = self._clock()


class _ConflictError(Exception):
    """A client can't be brought into the store. The text says why."""


def _digest(declared: Sequence[DeclaredClient]) -> str:
    digest = hashlib.sha256()
    for one in sorted(client.fingerprint() for client in declared):
        digest.update(hashlib.sha256(one).digest())
    return digest.hexdigest()


def _described(client: Client) -> tuple[object, ...]:
    return client.client_name, client.scopes, metadata_of(client), client.expires_at


def _differences(old: Client, new: Client) -> list[str]:
    """The names of what differs; never values."""
    was, is_now = metadata_of(old), metadata_of(new)
    members = [
        name
        for name in ClientMetadata.__dataclass_fields__
        if getattr(was, name) != getattr(is_now, name)
    ]
    fields = [
        name
        for name in ("client_name", "scopes", "secret_hash", "expires_at", "rate_limit")
        if getattr(old, name) != getattr(new, name)
    ]
    return [name.removesuffix("_hash") for name in (*fields, *members)]
