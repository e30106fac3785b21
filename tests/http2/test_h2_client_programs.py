"""Clients of HTTP/2 that others have written: nghttp, h2load and curl, each a process."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest
from support.deadlines import within
from support.running_gateway import RunningGateway
from support.servers.raw_upstream import RawUpstream, Received
from support.tiers import slow

BODY = b"x" * 200_000


async def run(program: str, *arguments: object) -> str:
    """Run a program to its end; returns what it printed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed (apt-get install nghttp2-client curl)")
    process = await asyncio.create_subprocess_exec(
        path, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with within():
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-2000:]
    return out.decode()


@pytest.fixture
def upload(tmp_path: Path) -> str:
    path = tmp_path / "upload"
    path.write_bytes(BODY)
    return str(path)


def respond(received: Received) -> bytes:
    body = received.body or b"ok"
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("program", ["nghttp", "curl"])
async def test_upload_comes_back_whole(
    gateway: RunningGateway, upstream: RawUpstream, upload: str, program: str
) -> None:
    upstream.respond = respond
    if program == "nghttp":
        body = await run("nghttp", "-d", upload, gateway.url("/public"))
    else:
        body = await run(
            "curl", "-s", "--http2-prior-knowledge", "--data-binary", f"@{upload}",
            gateway.url("/public"),
        )  # fmt: skip
    assert body.encode() == BODY
    assert upstream.requests[0].body == BODY


async def test_nghttp_sees_statuses_and_several_streams(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    paths = ("/public/a", "/public/b", "/api/things")
    out = await run("nghttp", "-nv", *map(gateway.url, paths))
    assert sorted(re.findall(r":status: (\d+)", out)) == ["200", "200", "401"]
    assert "www-authenticate: Bearer" in out
    assert {one.request_line.split()[1] for one in upstream.requests} == {
        b"/public/a",
        b"/public/b",
    }


@slow("under load")
@pytest.mark.parametrize("streams", [1, 100])
async def test_h2load_loses_nothing(gateway: RunningGateway, streams: int) -> None:
    out = await run(
        "h2load", "-n", "2000", "-c", "4", "-m", str(streams), gateway.url("/public")
    )  # fmt: skip
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in out
    assert "status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx" in out


@slow("under load")
async def test_h2load_uploads_with_small_windows(
    gateway: RunningGateway, upstream: RawUpstream, upload: str
) -> None:
    upstream.respond = respond
    out = await run(
        "h2load", "-n", "100", "-c", "2", "-m", "10", "-w", "14", "-W", "15", "-d", upload,
        gateway.url("/public"),
    )  # fmt: skip
    assert "100 succeeded, 0 failed, 0 errored, 0 timeout" in out
    assert all(one.body == BODY for one in upstream.requests)
