"""Names that DNS knows, through a real DNS server whose responses change."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from support.deadlines import scaled, until, within
from support.running_gateway import RunningGateway, StartGateway
from support.servers.dns_server import DnsServer, dns_server
from support.servers.raw_upstream import OK, Conversation, RawUpstream

from gateway.metrics import Histogram
from gateway.upstream.discovery import DnsResolver
from gateway.upstream.settings import UpstreamTimeouts
from gateway.upstream.target import Target
from gateway.upstream.upstream import Upstream

SAMPLE = "gateway_upstream_endpoints"


def by_name(dns: DnsServer, port: int, **settings: Any) -> dict[str, Any]:
    return {
        "main": {
            "targets": [f"http://shop.test:{port}"],
            "dns": {"servers": [f"127.0.0.1:{dns.port}"], "refresh": "100ms"},
            **settings,
        }
    }


async def has_endpoints(gateway: RunningGateway, count: int) -> None:
    async with within():
        while await gateway.metric(SAMPLE, upstream="main") != count:
            await asyncio.sleep(0.05)


async def fetch(gateway: RunningGateway, count: int = 1) -> None:
    for _ in range(count):
        async with gateway.session.get(gateway.url("/public")) as response:
            assert response.status == 200


async def test_each_address_of_a_name_is_an_endpoint_and_changes_are_followed(
    start: StartGateway,
) -> None:
    one, two, three = RawUpstream(), RawUpstream(), RawUpstream()
    await one.start()
    await two.start(one.port, host="127.0.0.2")
    await three.start(one.port, host="127.0.0.3")
    try:
        async with dns_server(shop_test=["127.0.0.1", "127.0.0.2"]) as dns:
            gateway = await start("", upstreams=by_name(dns, one.port))
            await has_endpoints(gateway, 2)
            await fetch(gateway, 6)
            assert {len(one.requests), len(two.requests)} <= {2, 3, 4}
            assert one.requests[0].all(b"host")[0].startswith(b"127.0.0.1")

            dns.names["shop.test"] = ["127.0.0.2", "127.0.0.3"]
            await until(lambda: one.open_connections == 0)
            seen = len(one.requests)
            await fetch(gateway, 6)
            assert len(one.requests) == seen
            assert len(three.requests) == 3
            assert await gateway.metric(SAMPLE, upstream="main") == 2
    finally:
        for upstream in (one, two, three):
            await upstream.stop()


async def test_request_on_an_address_that_is_removed_is_finished(start: StartGateway) -> None:
    async def respond_when_released(conversation: Conversation, upstream: RawUpstream) -> None:
        while await conversation.read_head() is not None:
            await is_reported.wait()
            await conversation.send(OK)

    is_reported = asyncio.Event()
    one, two = RawUpstream(script=respond_when_released), RawUpstream()
    await one.start()
    await two.start(one.port, host="127.0.0.2")
    try:
        async with dns_server(shop_test=["127.0.0.1"]) as dns:
            gateway = await start("", upstreams=by_name(dns, one.port))
            await has_endpoints(gateway, 1)
            slow = asyncio.create_task(fetch(gateway))
            await until(lambda: one.open_connections == 1)
            dns.names["shop.test"] = ["127.0.0.2"]
            async with within():
                while not two.requests:
                    await asyncio.wait_for(asyncio.shield(fetch_quietly(gateway)), scaled())
            is_reported.set()
            await slow
            await until(lambda: one.open_connections == 0)
    finally:
        is_reported.set()
        await one.stop()
        await two.stop()


async def fetch_quietly(gateway: RunningGateway) -> None:
    try:
        async with asyncio.timeout(0.3), gateway.session.get(gateway.url("/public")):
            pass
    except TimeoutError:
        pass


@pytest.mark.parametrize("trouble", ["broken", "forgotten"])
async def test_addresses_known_last_go_on_while_dns_fails(
    start: StartGateway, upstream: RawUpstream, trouble: str
) -> None:
    async with dns_server(shop_test=["127.0.0.1"]) as dns:
        gateway = await start("", upstreams=by_name(dns, upstream.port))
        await until(lambda: dns.questions > 0)
        await fetch(gateway)
        if trouble == "broken":
            dns.is_broken = True
        else:
            dns.names.clear()
        requested = dns.questions
        await until(lambda: dns.questions > requested + 2)
        await fetch(gateway)


async def test_name_that_dns_does_not_know_yet_is_502_until_it_does(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with dns_server() as dns:
        gateway = await start("", upstreams=by_name(dns, upstream.port, retries={"attempts": 0}))
        async with gateway.session.get(gateway.url("/public")) as response:
            assert (response.status, (await response.json())["reason"]) == (
                502,
                "upstream_connect_failed",
            )
        dns.names["shop.test"] = ["127.0.0.1"]
        async with within():
            while not upstream.requests:
                async with gateway.session.get(gateway.url("/public")) as response:
                    await response.read()


async def test_undiscovered_name_is_one_endpoint_that_is_looked_up_for_each_connection(
    start: StartGateway, upstream: RawUpstream
) -> None:
    async with dns_server(shop_test=["127.0.0.9", "127.0.0.1"]) as dns:
        settings = by_name(dns, upstream.port)
        settings["main"]["dns"]["discover"] = False
        gateway = await start("", upstreams=settings)
        await fetch(gateway, 2)
        assert await gateway.metric(SAMPLE, upstream="main") == 1


async def becomes(gateway: RunningGateway, status: int) -> None:
    """Ask until the response has this status."""
    async with asyncio.timeout(scaled(10)):
        while True:
            async with gateway.session.get(gateway.url("/public")) as response:
                if response.status == status:
                    return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("discover", [True, False])
async def test_name_without_addresses_is_found_as_soon_as_it_has_one(
    start: StartGateway, upstream: RawUpstream, *, discover: bool
) -> None:
    async with dns_server(shop_test=[]) as dns:
        settings = by_name(dns, upstream.port)
        settings["main"]["dns"]["discover"] = discover
        gateway = await start("", upstreams=settings)
        await becomes(gateway, 502)
        await until(lambda: dns.questions > 1)
        dns.names["shop.test"] = ["127.0.0.1"]
        await becomes(gateway, 200)


async def test_addresses_that_come_back_after_none_are_followed(start: StartGateway) -> None:
    old, new = RawUpstream(), RawUpstream()
    await old.start()
    await new.start(old.port, host="127.0.0.2")
    try:
        async with dns_server(shop_test=["127.0.0.1"]) as dns:
            gateway = await start("", upstreams=by_name(dns, old.port))
            await has_endpoints(gateway, 1)
            await becomes(gateway, 200)
            dns.names["shop.test"] = []
            requested = dns.questions
            await until(lambda: dns.questions > requested + 4)
            await fetch(gateway)
            assert new.requests == []
            dns.names["shop.test"] = ["127.0.0.2"]
            await old.stop()
            async with asyncio.timeout(scaled(10)):
                while not new.requests:
                    async with gateway.session.get(gateway.url("/public")) as response:
                        await response.read()
    finally:
        await old.stop()
        await new.stop()


async def test_name_is_looked_up_after_max_ttl_whatever_its_ttl(start: StartGateway) -> None:
    async with dns_server(shop_test=["127.0.0.1"]) as dns:
        dns.ttl = 3600
        settings = by_name(dns, 9)
        settings["main"]["dns"]["max_ttl"] = "100ms"
        gateway = await start("", upstreams=settings)
        dns.names["shop.test"] = ["127.0.0.1", "127.0.0.2"]
        await has_endpoints(gateway, 2)


async def test_name_is_asked_for_once_however_many_connections_want_it() -> None:
    async with dns_server(shop_test=["127.0.0.1"]) as dns:
        resolver = DnsResolver([f"127.0.0.1:{dns.port}"], family="ipv4")
        found = await asyncio.gather(*(resolver.resolve("shop.test") for _ in range(50)))
        assert found == [["127.0.0.1"]] * 50
        assert dns.questions == 1
        assert await resolver.resolve("shop.test") == ["127.0.0.1"]
        assert dns.questions == 2


async def test_resolver_reports_the_ttl_and_keeps_to_the_family() -> None:
    async with dns_server(shop_test=["127.0.0.1", "::1"]) as dns:
        dns.ttl = 7
        servers = [f"127.0.0.1:{dns.port}"]
        for family, addresses in (
            ("ipv4", {"127.0.0.1"}),
            ("ipv6", {"::1"}),
            ("all", {"127.0.0.1", "::1"}),
        ):
            resolver = DnsResolver(servers, family=family)  # type: ignore[arg-type]
            found = await resolver.look_up("shop.test")
            assert set(found.addresses) == addresses
            assert 0 < found.ttl_s <= 7
        resolver = DnsResolver(servers, family="auto")
        assert len((await resolver.look_up("shop.test")).addresses) == 1
        with pytest.raises(OSError, match=r"nowhere\.test can't be looked up"):
            await resolver.look_up("nowhere.test")


async def test_endpoint_that_stays_keeps_its_connections_and_order_follows_the_targets() -> None:
    targets = [Target(f"http://{name}.test:80", UpstreamTimeouts()) for name in ("a", "b")]
    upstream = Upstream("u", targets, durations=Histogram())
    upstream.set_addresses(targets[1], ["10.0.0.2", "10.0.0.3"])
    stays = upstream.endpoints[2]
    upstream.set_addresses(targets[1], ["10.0.0.3", "10.0.0.4"])
    assert stays in upstream.endpoints
    assert [one.address for one in upstream.endpoints] == ["", "10.0.0.3", "10.0.0.4"]
    upstream.set_addresses(targets[1], [])
    assert len(upstream.endpoints) == 3
    counts = Counter(upstream.choose("").address for _ in range(9))
    assert set(counts.values()) == {3}
    await upstream.stop()
