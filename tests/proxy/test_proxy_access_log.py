"""What the access log is told: format, sampling, and nothing that should not be in it."""

from __future__ import annotations

from pathlib import Path

from support.deadlines import until
from support.protocols import both_protocols, only_http1
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.access_log import AccessRecord, NoAccessLog
from gateway.downstream.request import NO_HEAD, NO_LINE, Peer, Request
from gateway.downstream.stream import DiscardingStream
from gateway.metrics import Metrics
from gateway.proxy.request_log import RequestLog

pytestmark = both_protocols


async def get(gateway: RunningGateway, path: str, *lines: str) -> int:
    text = "\r\n".join((f"GET {path} HTTP/1.1", "Host: h", *lines, "Connection: close"))
    return int((await gateway.send(f"{text}\r\n\r\n".encode("latin-1"))).split()[1])


@only_http1
async def test_combined_lines_report_the_agent_and_no_query(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    path = tmp_path / "combined.log"
    log = {"path": str(path), "format": "apache_combined"}
    gateway = await start(upstream.url, access_log=log)
    token = await gateway.token("shop")
    lines = (
        "User-Agent: a\"gent\\", "Referer: https://example.com/from?session=geheim",
        f"Authorization: Bearer {token}",
    )  # fmt: skip
    assert await get(gateway, "/api/x?secret=geheim", *lines) == 200
    await until(lambda: len(path.read_text().splitlines()) == 3)
    line = path.read_text().splitlines()[-1]
    assert line.startswith("127.0.0.1 - shop [")
    assert line.endswith(
        '+0000] "GET /api/x HTTP/1.1" 200 2 "https://example.com/from" "a\\"gent\\\\"'
    )
    assert "geheim" not in path.read_text()
    assert token not in path.read_text()


async def test_zone_of_an_address_forges_no_line(
    start: StartGateway, upstream: RawUpstream, tmp_path: Path
) -> None:
    path = tmp_path / "combined.log"
    log = {"path": str(path), "format": "apache_combined"}
    gateway = await start(upstream.url, access_log=log, trusted_proxies=["127.0.0.0/8", "::/0"])
    for reported in ('::1%eth0 - admin [] "GET x" 200 5', "fe80::1%\xff"):
        assert await get(gateway, "/public/x", f"X-Forwarded-For: {reported}") == 200
    await until(lambda: len(path.read_text().splitlines()) == 2)
    for line in path.read_text().splitlines():
        assert line.startswith("127.0.0.1 - - [")


async def test_sample_of_zero_reports_failures_all_the_same(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, access_log={"sample": 0})
    for path, status in (("/public/x", 200), ("/api/x", 401), ("/public/x", 200), ("/no", 404)):
        assert await get(gateway, path) == status
    lines = await gateway.logged(2)
    assert [line["status"] for line in lines] == [401, 404]
    assert await gateway.metric("gateway_request_duration_seconds_count", route="public") == 2


class Kept(NoAccessLog):
    sample = 0.25

    def __init__(self) -> None:
        self.records: list[AccessRecord] = []

    def write(self, record: AccessRecord) -> None:
        self.records.append(record)


async def test_share_of_the_requests_is_reported_that_chance_picks() -> None:
    kept, chances = Kept(), iter([0.0, 0.249, 0.25, 0.9])
    request_log = RequestLog(Metrics(), kept, chance=lambda: next(chances))
    for status, reason in ((200, ""), (204, ""), (304, ""), (200, ""), (200, "cut"), (500, "")):
        request = Request(NO_LINE, NO_HEAD, Peer("192.0.2.1"))
        context = request_log.begin(DiscardingStream(), request)
        context.responded(status, reason)
        request_log.finish(context)
    assert [(each.status, each.reason) for each in kept.records] == [
        (200, ""), (204, ""), (200, "cut"), (500, ""),
    ]  # fmt: skip
