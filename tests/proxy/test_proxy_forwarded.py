"""What trusted proxies say of the client, in each spelling, decides addresses and schemes."""

from __future__ import annotations

from typing import Any

import pytest
from support.protocols import both_protocols
from support.running_gateway import RunningGateway, StartGateway, basic
from support.servers.raw_upstream import RawUpstream, Received

pytestmark = both_protocols

NETWORK = "203.0.113.0/24"


def route(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "match": {"path": f"/{name}"}, "auth": "none", "upstream": "main"} | keys


@pytest.fixture
async def behind(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    """A gateway behind a trusted proxy, with rules by address and by scheme."""
    return await start(
        upstream.url,
        trusted_proxies=["127.0.0.1/32", "10.0.0.0/8"],
        provider={"failed_client_limit": {"failures": 3, "window": "10m"}},
        routes=[
            route("deny", ip={"deny": [NETWORK]}),
            route("allow", ip={"allow": [NETWORK]}),
            route("https", https_only=True),
            route("open"),
        ],
    )


async def fetch(gateway: RunningGateway, path: str, *fields: str) -> int:
    head = "\r\n".join((f"GET {path} HTTP/1.1", "Host: h", "Connection: close", *fields))
    response = await gateway.send(f"{head}\r\n\r\n".encode())
    return int(response.split(b" ")[1])


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-For: 203.0.113.7:5123",
        "X-Forwarded-For: 203.0.113.7:99, 127.0.0.1:80",
        "X-Forwarded-For: 203.0.113.7, ::ffff:10.0.0.9",
        "X-Forwarded-For: ::ffff:203.0.113.7",
        "Forwarded: for=203.0.113.7;proto=https;host=www.example",
    ],
)
async def test_address_rules_see_the_client_in_each_spelling(
    behind: RunningGateway, field: str
) -> None:
    assert (await fetch(behind, "/deny", field), await fetch(behind, "/allow", field)) == (403, 200)
    assert [line["client"] for line in await behind.logged(2)] == ["203.0.113.7"] * 2


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-Proto: wss", "X-Forwarded-Proto: https, http",
        "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https", "Forwarded: proto=https",
    ],
)  # fmt: skip
async def test_client_that_came_by_tls_is_not_redirected_to_it(
    behind: RunningGateway, upstream: RawUpstream, field: str
) -> None:
    assert await fetch(behind, "/https", field) == 200
    assert upstream.requests[0].all(b"x-forwarded-proto") == [b"https"]


async def test_failed_clients_are_counted_by_address_and_not_by_their_proxy(
    behind: RunningGateway,
) -> None:
    async def get_token(source: str) -> int:
        async with behind.session.post(
            behind.url("/token"),
            data={"grant_type": "client_credentials"},
            headers=basic("nobody", "wrong") | {"X-Forwarded-For": source},
        ) as response:
            return response.status

    statuses = [await get_token(f"203.0.113.66:{port}") for port in range(1000, 1006)]
    assert statuses[-1] == 429
    assert await get_token("198.51.100.9:5000") == 401


async def reported(gateway: RunningGateway, upstream: RawUpstream, *fields: str) -> Received:
    await fetch(gateway, "/open", *fields)
    return upstream.requests[-1]


async def test_forwarded_and_its_forerunners_say_the_same(
    behind: RunningGateway, upstream: RawUpstream
) -> None:
    received = await reported(
        behind, upstream, "X-Forwarded-For: 203.0.113.7:80, 2001:db8::1", "X-Forwarded-Proto: https"
    )
    assert received.all(b"forwarded") == [
        b'for=203.0.113.7;proto=https, for="[2001:db8::1]", for=127.0.0.1;host="h";proto=http'
    ]
    received = await reported(behind, upstream, "Forwarded: for=203.0.113.7;proto=https;host=www.a")
    assert received.all(b"x-forwarded-for") == [b"203.0.113.7, 127.0.0.1"]
    assert received.all(b"x-forwarded-proto") == [b"https"]
    assert received.all(b"x-forwarded-host") == [b"www.a"]


async def test_empty_list_of_hops_adds_none(behind: RunningGateway, upstream: RawUpstream) -> None:
    received = await reported(behind, upstream, "X-Forwarded-For:")
    assert received.all(b"x-forwarded-for") == [b"127.0.0.1"]
