"""Paths with `%2F` and `%5C`, which a route may let pass, and what they must not reach."""

from __future__ import annotations

import pytest
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream


def route(name: str, path: str, **more: object) -> dict[str, object]:
    return {"name": name, "match": {"path": path}, "upstream": "main", "auth": "none", **more}


@pytest.fixture
async def gateway(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    return await start(
        upstream.url,
        routes=[
            route("queues", "/api/queues", allow_encoded_slashes=True),
            route("closed", "/api/queues/secret", auth="required"),
            route("cut", "/cut", allow_encoded_slashes=True, rewrite={"strip_prefix": "/cut"}),
            route(
                "swapped", "/swap", allow_encoded_slashes=True,
                rewrite={"regex": {"pattern": "^/swap/(.*)$", "substitution": "/new/\\1"}},
            ),
            route("all", "/", allow_encoded_slashes=True),
            route("strict", "/strict"),
        ],
    )  # fmt: skip


async def status_of(gateway: RunningGateway, path: str) -> int:
    sent = f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode("ascii")
    return int((await gateway.send(sent)).split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("path", "forwarded"),
    [
        ("/api/queues/%2F/q", "/api/queues/%2F/q"),
        ("/api/queues/%2f/q?x=%2F", "/api/queues/%2F/q?x=%2F"),
        ("/api/queues/a%5Cb", "/api/queues/a%5Cb"),
        ("/cut/a%2Fb", "/a%2Fb"),
        ("/swap/a%2Fb", "/new/a%2Fb"),
        ("/group%2Fproject", "/group%2Fproject"),
    ],
)
async def test_escaped_slash_is_forwarded_as_it_is_where_the_route_says_so(
    gateway: RunningGateway, upstream: RawUpstream, path: str, forwarded: str
) -> None:
    assert await status_of(gateway, path) == 200
    assert upstream.requests[0].request_line == f"GET {forwarded} HTTP/1.1".encode()


@pytest.mark.parametrize(
    "path",
    [
        "/strict/a%2Fb",  # not asked for
        "/api/queues%2Fsecret/x",  # another route if it is decoded
        "/api/queues/x%2F..%2Fsecret",
        "/api/queues/%2E%2E%2Fsecret",
        "/api/queues/%252e%252e%252fstrict",
        "/api/queues/%2fsecret",
        "/api/queues/..%5Csecret",
        "/strict%2Fa",
        "/cut%2F..%2Fstrict",
        "/api/queues/%00",
        "/api/queues/a%0Ab%2F",
    ],
)
async def test_escaped_slash_that_could_mean_another_route_is_400(
    gateway: RunningGateway, upstream: RawUpstream, path: str
) -> None:
    assert await status_of(gateway, path) == 400
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["/%2Ftoken", "/token%2F", "/%5Ctoken"])
async def test_escaped_slash_leads_to_no_path_of_the_provider(
    gateway: RunningGateway, upstream: RawUpstream, path: str
) -> None:
    assert await status_of(gateway, path) in {400, 404}
    assert upstream.requests == []


async def test_without_such_a_route_every_escaped_slash_is_400(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url)
    assert await status_of(gateway, "/public/a%2Fb") == 400
    assert await status_of(gateway, "/nowhere%5C") == 400
