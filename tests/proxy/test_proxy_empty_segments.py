"""Paths with empty segments, which a route may forward as they came."""

from __future__ import annotations

import pytest
from support.protocols import both_protocols
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.config import ConfigError, parse_config

pytestmark = both_protocols


def route(name: str, path: str, **more: object) -> dict[str, object]:
    return {"name": name, "match": {"path": path}, "upstream": "main", "auth": "none", **more}


@pytest.fixture
async def gateway(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    return await start(
        upstream.url,
        routes=[
            route("objects", "/s3/bucket", merge_slashes=False),
            route("closed", "/s3/bucket/private", merge_slashes=False, auth="required"),
            route(
                "cut", "/cut", merge_slashes=False,
                rewrite={"strip_prefix": "/cut", "add_prefix": "/new"},
            ),
            route("bare", "/bare", merge_slashes=False, rewrite={"strip_prefix": "/bare"}),
            route("all", "/", merge_slashes=False),
            route("merged", "/merged"),
        ],
    )  # fmt: skip


async def status_of(gateway: RunningGateway, path: str) -> int:
    sent = f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode("ascii")
    return int((await gateway.send(sent)).split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("path", "forwarded"),
    [
        ("/s3/bucket/a//b", "/s3/bucket/a//b"),
        ("/s3/bucket//a", "/s3/bucket//a"),
        ("/s3/bucket/a//?list=//", "/s3/bucket/a//?list=//"),
        ("//s3///bucket///a", "/s3/bucket///a"),
        ("/s3/bucket/%41//%2a", "/s3/bucket/A//%2A"),
        ("/s3/bucket//", "/s3/bucket//"),
        ("/cut//a///b", "/new//a///b"),
        ("/cut//", "/new//"),
        ("/bare//evil.example/x//y", "/evil.example/x//y"),
        ("//evil.example//x", "/evil.example//x"),
        ("///", "/"),
        ("/s3/bucket/a/./b//c", "/s3/bucket/a/b/c"),
        ("/s3/bucket/a//../b", "/s3/bucket/b"),
        ("/merged//a", "/merged/a"),
    ],
)
async def test_empty_segments_are_forwarded_behind_the_path_of_a_route_that_keeps_them(
    gateway: RunningGateway, upstream: RawUpstream, path: str, forwarded: str
) -> None:
    assert await status_of(gateway, path) == 200
    assert upstream.requests[0].request_line == f"GET {forwarded} HTTP/1.1".encode()


@pytest.mark.parametrize(
    "path", ["/s3/bucket//private/x", "/s3/bucket/private//x", "/s3//bucket//private"]
)
async def test_they_lead_around_no_other_route(
    gateway: RunningGateway, upstream: RawUpstream, path: str
) -> None:
    assert await status_of(gateway, path) == 401
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["//token", "/token//", "///revoke"])
async def test_they_lead_to_no_path_of_the_provider(
    gateway: RunningGateway, upstream: RawUpstream, path: str
) -> None:
    assert await status_of(gateway, path) in {400, 404, 405}
    assert upstream.requests == []


def test_pattern_for_the_path_can_not_be_used_with_them() -> None:
    with pytest.raises(ConfigError, match="merge_slashes"):
        parse_config(
            "upstreams: {main: {targets: ['http://a']}}\n"
            "provider: {registration: {mode: 'off'}}\n"
            "routes: [{name: a, match: {path: /a}, upstream: main, merge_slashes: false,"
            " rewrite: {regex: {pattern: '^/a', substitution: /b}}}]",
            file="g.yaml",
        )
