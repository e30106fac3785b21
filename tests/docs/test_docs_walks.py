"""The walks of docs/explanation/request-path.md are those of real requests through the code."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from support.running_gateway import RunningGateway
from support.servers.raw_upstream import RawUpstream

import gateway as package

PACKAGE = Path(package.__file__).parent
TEXT = (PACKAGE.parent / "docs" / "explanation" / "request-path.md").read_text("utf-8")
SECTION = TEXT.partition("\n## Three walks\n")[2].partition("\n## ")[0]
WALKS = [
    re.findall(r"`([a-z_0-9/]+\.py)`", one)
    for one in re.findall(r"(?:^[0-9]+\. .*\n)+", SECTION, re.MULTILINE)
]


def is_periodic(frame: FrameType | None) -> bool:
    """Whether a task that runs beside the requests makes this call, or a thread's results come,
    which may be those of such a task."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.endswith(("/app/periodic.py", "/gateway/background.py")):
            return True
        if code.co_qualname == "Results._deliver":
            return True
        frame = frame.f_back
    return False


@contextmanager
def first_visits() -> Iterator[list[str]]:
    """Collect the files of the gateway in the order in which their code first runs."""
    visited: list[str] = []

    def follow(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE) and not is_periodic(frame):
            name = path.relative_to(PACKAGE).as_posix()
            if name not in visited:
                visited.append(name)

    threading.setprofile(follow)
    sys.setprofile(follow)
    try:
        yield visited
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


async def get(gateway: RunningGateway, path: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.session.get(gateway.url(path), headers=headers) as response:
        await response.read()
        return response.status


async def test_walks_are_those_of_real_requests(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    proxied, issued, rejected = WALKS
    await gateway.create_client("shop")
    token = await gateway.get_token("shop")
    assert await get(gateway, "/api/first", token) == 200
    with first_visits() as visited:
        assert await get(gateway, "/api/second", token) == 200
    assert [name for name in visited if name in proxied] == proxied
    with first_visits() as visited:
        await gateway.get_token("shop")
    assert [name for name in visited if name in issued] == issued
    with first_visits() as visited:
        assert await get(gateway, "/api/write/walk", token) == 403
    assert [name for name in visited if name in rejected] == rejected
