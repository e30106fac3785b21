"""Clients that a configuration declares: brought into each store by exactly one of many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from support.provider import POLICY, Clock, CountingHasher
from support.stores.values import make_token

from gateway.oauth.api_keys import ApiKeys, KeySettings
from gateway.oauth.client_metadata import ClientMetadata, metadata_of
from gateway.oauth.clients import ClientRegistry
from gateway.oauth.declared_clients import (
    LEASE_S,
    ClientReconciler,
    DeclaredClient,
    DeclaredSecret,
    Reconciled,
)
from gateway.oauth.errors import ManagedClientError
from gateway.oauth.models import Client, Record, Store, StoreUnavailableError, digest_token
from gateway.oauth.users.tokens import USER
from gateway.rate_limit import RateLimit


class Gateways:
    """Gateways on one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.hasher = CountingHasher(clock)
        self.registry = ClientRegistry(store, POLICY, self.hasher, wall_clock=clock)

    def start(self, *, passes_time: bool = False) -> ClientReconciler:
        """One more, which has not reconciled yet. While it waits for others, time stands still
        unless it `passes_time`."""

        async def sleep(seconds: float) -> None:
            self.clock.now += seconds if passes_time else 0
            await asyncio.sleep(0.005)

        return ClientReconciler(
            self.registry, self.hasher, wall_clock=self.clock, clock=self.clock, sleep=sleep
        )

    async def find(self, client_id: str) -> Client:
        client = await self.store.clients.get_client(client_id)
        assert client is not None
        return client


@pytest.fixture
async def gateways(store: Store, clock: Clock) -> AsyncIterator[Gateways]:
    opened = Gateways(store, clock)
    yield opened
    await opened.hasher.close()


def declare(client_id: str = "billing", secret: str = "secret") -> DeclaredClient:
    return DeclaredClient(
        client_id, client_id, ("orders:read",), ClientMetadata(), DeclaredSecret(secret)
    )


def summary(reconciled: Reconciled) -> list[tuple[str, str]]:
    return [(action.client_id, action.done) for action in reconciled.actions]


async def test_declared_clients_are_kept_as_declared(gateways: Gateways) -> None:
    gateway = gateways.start()
    limited = replace(declare("shop"), rate_limit=RateLimit(5, 1.0, 5))
    first = await gateway.reconcile("config", [declare(), limited])
    assert summary(first) == [("billing", "created"), ("shop", "created")]
    client = await gateways.find("billing")
    assert (client.scopes, client.expires_at) == (("orders:read",), None)
    assert metadata_of(client).managed_by == "config"
    assert (await gateways.find("shop")).rate_limit == RateLimit(5, 1.0, 5)
    assert await gateways.registry.is_secret(client, "secret")
    changed = replace(declare(), scopes=("orders:read", "orders:write"))
    second = await gateway.reconcile("config", [changed, replace(limited, rate_limit=None)])
    assert [str(action.detail) for action in second.actions] == ["scopes", "rate_limit"]
    assert (await gateways.find("billing")).scopes == ("orders:read", "orders:write")
    assert (await gateways.find("shop")).rate_limit is None


async def test_what_is_as_declared_is_not_written(gateways: Gateways) -> None:
    await gateways.start().reconcile("config", [declare()])
    before = await gateways.find("billing")
    assert summary(await gateways.start().reconcile("config", [declare()])) == []
    assert await gateways.find("billing") == before


async def test_secret_is_replaced_where_the_file_holds_another(gateways: Gateways) -> None:
    gateway = gateways.start()
    await gateway.reconcile("config", [declare()])
    rotated = replace(declare(secret="new"), previous_secret=DeclaredSecret("secret"))
    await gateway.reconcile("config", [rotated])
    client = await gateways.find("billing")
    assert await gateways.registry.is_secret(client, "new")
    previous = metadata_of(client).previous_secret(gateways.clock.now)
    assert await gateways.hasher.verify("secret", previous)
    await gateway.reconcile("config", [declare(secret="new")])
    assert metadata_of(await gateways.find("billing")).previous_secret(gateways.clock.now) is None


async def test_secret_is_hashed_once(gateways: Gateways) -> None:
    gateway = gateways.start()
    await gateway.reconcile("config", [declare()])
    count = gateways.hasher.count
    for _ in range(3):
        await gateway.reconcile("config", [declare()])
    assert gateways.hasher.count == count


async def test_removed_client_is_disabled_then_deleted_and_good_again_if_declared(
    gateways: Gateways,
) -> None:
    store, gateway = gateways.store, gateways.start()
    await gateway.reconcile("config", [declare(), declare("shop")])
    token = make_token(client_id="billing")
    generation = (await gateways.find("billing")).generation
    await store.tokens.add_token(token, generation=generation)
    removed = await gateway.reconcile("config", [declare("shop")])
    assert summary(removed) == [("billing", "disabled")]
    client = await gateways.find("billing")
    assert client.is_expired(gateways.clock.now)
    assert metadata_of(client).disabled_at == gateways.clock.now
    assert await store.tokens.get_token(token.digest) is None
    assert summary(await gateway.reconcile("config", [declare("shop")])) == []
    again = await gateway.reconcile("config", [declare(), declare("shop")])
    assert summary(again) == [("billing", "enabled")]
    client = await gateways.find("billing")
    assert not client.is_expired(gateways.clock.now)
    assert metadata_of(client).disabled_at is None
    await gateway.reconcile("config", [])
    await store.purge(tokens_before=0, clients_before=gateways.clock.now + 1)
    assert await store.clients.list_clients() == []
    assert summary(await gateway.reconcile("config", [])) == []


async def test_tokens_of_a_removed_client_end_also_where_a_gateway_ended_before_it_came_to_them(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, gateway = gateways.store, gateways.start()
    await gateway.reconcile("config", [declare()])
    token = make_token(client_id="billing")
    generation = (await gateways.find("billing")).generation
    await store.tokens.add_token(token, generation=generation)

    async def end(client_id: str) -> int:
        raise StoreUnavailableError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(gateways.registry, "revoke_client_tokens", end)
        with pytest.raises(StoreUnavailableError):
            await gateway.reconcile("config", [])
    assert await store.tokens.get_token(token.digest) is not None
    assert summary(await gateways.start().reconcile("config", [])) == []
    assert await store.tokens.get_token(token.digest) is None


async def test_api_keys_of_a_client_work_until_it_is_removed(gateways: Gateways) -> None:
    gateway, keys = gateways.start(), ApiKeys(gateways.store, wall_clock=gateways.clock)
    await gateway.reconcile("config", [declare()])
    made = await keys.create("billing", KeySettings("ci"))
    assert made is not None
    digest = digest_token(made.value)
    assert await keys.get_api_key(digest) is not None
    await gateway.reconcile("config", [])
    assert await keys.get_api_key(digest) is None
    await gateway.reconcile("config", [declare()])
    assert await keys.get_api_key(digest) is not None


async def test_client_of_an_operator_is_adopted_with_its_tokens(gateways: Gateways) -> None:
    made = await gateways.registry.register_client(client_id="billing", client_secret="secret")
    token = make_token(client_id="billing")
    await gateways.store.tokens.add_token(token, generation=made.client.generation)
    adopted = await gateways.start().reconcile("config", [declare()])
    assert summary(adopted) == [("billing", "adopted")]
    assert await gateways.store.tokens.get_token(token.digest) is not None
    assert await gateways.registry.is_secret(await gateways.find("billing"), "secret")


async def test_client_that_registered_itself_is_replaced(gateways: Gateways) -> None:
    made = await gateways.registry.register_client(
        client_id="billing",
        client_secret="squatter",
        metadata=ClientMetadata(registration_token_digest="ab" * 32),
        is_trusted=False,
    )
    token = make_token(client_id="billing")
    await gateways.store.tokens.add_token(token, generation=made.client.generation)
    replaced = await gateways.start().reconcile("config", [declare()])
    assert summary(replaced) == [("billing", "replaced")]
    client = await gateways.find("billing")
    assert metadata_of(client).registration_token_digest is None
    assert not await gateways.registry.is_secret(client, "squatter")
    assert await gateways.store.tokens.get_token(token.digest) is None


async def test_client_of_another_owner_is_left_alone(gateways: Gateways) -> None:
    await gateways.start().reconcile("team-a", [declare()])
    other = gateways.start()
    found = await other.reconcile("team-b", [declare(secret="other"), declare("shop")])
    assert summary(found) == [("shop", "created")]
    assert len(found.conflicts) == 1
    assert "team-a" in found.conflicts[0]
    assert summary(await other.reconcile("team-b", [])) == [("shop", "disabled")]
    client = await gateways.find("billing")
    assert metadata_of(client).managed_by == "team-a"
    assert await gateways.registry.is_secret(client, "secret")


async def test_client_whose_name_a_user_took_later_is_still_disabled_when_it_is_removed(
    gateways: Gateways,
) -> None:
    gateway = gateways.start()
    await gateway.reconcile("config", [declare()])
    await gateways.store.records.add_record(Record(USER, "billing", "", b"{}", None))
    found = await gateway.reconcile("config", [declare(), declare("shop")])
    assert (summary(found), len(found.conflicts)) == ([("shop", "created")], 1)
    removed = await gateway.reconcile("config", [declare("shop")])
    assert summary(removed) == [("billing", "disabled")]
    assert (await gateways.find("billing")).is_expired(gateways.clock.now)


async def test_gateways_with_different_clients_do_not_undo_each_other(gateways: Gateways) -> None:
    old, new = gateways.start(), gateways.start()
    await old.reconcile("config", [declare()])
    await new.reconcile("config", [declare(), declare("shop")])
    assert await old.is_overridden()
    assert not await new.is_overridden()
    # A reload that changes nothing of the clients is no reason to undo.
    assert (await old.reconcile("config", [declare()])).is_overridden
    assert not (await gateways.find("shop")).is_expired(gateways.clock.now)
    # A change is: the last change wins.
    changed = await old.reconcile("config", [declare(secret="new")])
    assert summary(changed) == [("billing", "changed"), ("shop", "disabled")]
    assert await new.is_overridden()


async def test_of_many_gateways_one_at_a_time_reconciles(gateways: Gateways) -> None:
    declared = [declare(f"client-{number}") for number in range(5)]
    runs = [gateways.start().reconcile("config", declared) for _ in range(4)]
    done = [one for reconciled in await asyncio.gather(*runs) for one in summary(reconciled)]
    assert sorted(done) == [(f"client-{number}", "created") for number in range(5)]


async def test_lease_of_a_gateway_that_was_killed_expires(gateways: Gateways) -> None:
    await gateways.start()._acquire("config")
    started = gateways.clock.now
    done = await gateways.start(passes_time=True).reconcile("config", [declare()])
    assert summary(done) == [("billing", "created")]
    assert gateways.clock.now >= started + LEASE_S


async def test_declared_client_is_read_only(gateways: Gateways) -> None:
    await gateways.start().reconcile("config", [declare()])
    registry, before = gateways.registry, await gateways.find("billing")
    for change in (
        lambda: registry.update_client("billing", client_name="Other"),
        lambda: registry.renew_client("billing"),
        lambda: registry.rotate_secret("billing"),
        lambda: registry.end_overlap("billing"),
        lambda: registry.limit_client("billing", None),
        lambda: registry.delete_client("billing"),
        lambda: registry.register_client(client_id="billing", replace_existing=True),
    ):
        with pytest.raises(ManagedClientError, match="clients_owner 'config'"):
            await change()
    assert await gateways.find("billing") == before
    assert await registry.release_client("billing") is not None
    assert await registry.delete_client("billing") == 0
