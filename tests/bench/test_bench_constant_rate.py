"""The load generator's accounting: nothing that was due is left out, stalls least of all."""

from __future__ import annotations

import asyncio
import inspect
import random
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.deadlines import within
from support.servers.raw_upstream import OK, Conversation, RawUpstream, thread_upstream

from bench.constant_rate import (
    COMPILER,
    INSTALL,
    ConstantRate,
    Load,
    parse_steady,
    render_request,
    write_requests,
)
from bench.cores import available_cpus
from bench.processes import BenchError

pytestmark = pytest.mark.skipif(
    shutil.which(COMPILER) is None, reason=f"there is no C compiler; get one by: {INSTALL}"
)

Respond = Callable[[int], bytes | Awaitable[bytes | None] | None]
"""Given the number of the request, from 0 on: the bytes to send, or None to close."""

MS = 1_000_000
GET = render_request("GET", "/x")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> ConstantRate:
    """The program, built without a warning of the compiler."""
    flags = ("-Wall", "-Wextra", "-Werror")
    return ConstantRate.build(tmp_path_factory.mktemp("build"), available_cpus(), *flags)


@pytest.fixture
def one_request(tmp_path: Path) -> Path:
    return write_requests(tmp_path / "requests", [GET])


@contextmanager
def scripted_server(respond: Respond) -> Iterator[RawUpstream]:
    """A server on a thread of its own that does with each request what a test says."""

    async def follow(conversation: Conversation, upstream: RawUpstream) -> None:
        while (received := await conversation.read_head()) is not None:
            number = len(upstream.requests)
            upstream.requests.append(received)
            response = respond(number)
            if inspect.isawaitable(response):
                response = await response
            if response is None:
                return
            await conversation.send(response)

    with thread_upstream(follow) as upstream:
        yield upstream


def test_histogram_is_exact_within_a_hundredth(generator: ConstantRate) -> None:
    chance = random.Random(1)
    values = sorted(int(chance.lognormvariate(12, 2)) for _ in range(20_000))
    seen = generator.percentiles(values)
    assert (seen.count, seen.max) == (len(values), values[-1])
    assert seen.mean == pytest.approx(sum(values) / len(values), rel=1e-6)
    for share, reported in (
        (0.5, seen.p50),
        (0.9, seen.p90),
        (0.99, seen.p99),
        (0.999, seen.p99_9),
    ):
        exact = values[round(share * len(values)) - 1]
        assert exact <= reported <= exact * 1.008 + 1


def test_histogram_of_small_numbers_is_exact(generator: ConstantRate) -> None:
    seen = generator.percentiles(range(1, 101))
    assert (seen.p50, seen.p90, seen.p99, seen.max) == (50, 90, 99, 100)


def test_histogram_takes_any_number(generator: ConstantRate) -> None:
    seen = generator.percentiles([0, 127, 128, 2**40, 2**63])
    assert (seen.count, seen.p50, seen.max) == (5, 128, 2**63)


def test_stall_is_paid_for_by_every_request_that_was_due(
    generator: ConstantRate, one_request: Path
) -> None:
    stall_s = 0.6

    async def stall_once(number: int) -> bytes:
        if number == 20:
            await asyncio.sleep(stall_s)
        return OK

    with scripted_server(stall_once) as server:
        seen = generator.run(
            Load(server.port, one_request, rate=100, seconds=1.5, warmup_s=0, connections=1)
        )
    assert (seen.answered, seen.failed, seen.unanswered) == (150, 0, 0)
    assert seen.latency_ns.count == 150
    # Of 150 requests, 16 were due in the first 150 ms of the stall: they waited for its rest.
    assert seen.latency_ns.max >= stall_s * 1000 * MS
    assert seen.latency_ns.p90 >= 450 * MS


def test_other_connections_go_on_while_one_is_stalled(
    generator: ConstantRate, one_request: Path
) -> None:
    completed_meanwhile: list[int] = []
    enough = asyncio.Event()

    async def stall_until_others_completed(number: int) -> bytes:
        if number == 5:
            async with within():
                await enough.wait()
        elif number >= 20:
            enough.set()
        completed_meanwhile.append(number)
        return OK

    with scripted_server(stall_until_others_completed) as server:
        seen = generator.run(
            Load(server.port, one_request, rate=100, seconds=0.5, warmup_s=0, connections=2)
        )
    assert (seen.answered, seen.unanswered) == (50, 0)
    assert completed_meanwhile.index(5) > completed_meanwhile.index(19)


def test_what_is_never_served_is_counted_with_the_time_it_waited(
    one_request: Path, tmp_path: Path
) -> None:
    impatient = ConstantRate.build(tmp_path, available_cpus(), "-DGRACE_S=1.0")

    async def fall_silent(number: int) -> bytes | None:
        if number >= 5:
            await asyncio.Event().wait()
        return OK

    with scripted_server(fall_silent) as server:
        seen = impatient.run(
            Load(server.port, one_request, rate=50, seconds=0.4, warmup_s=0, connections=1)
        )
    assert (seen.answered, seen.failed, seen.unanswered) == (5, 0, 15)
    assert seen.errors == 15
    assert seen.latency_ns.count == 20
    # Only 5 of 20 were answered, and nothing else waited less than the grace.
    assert seen.latency_ns.p50 >= 1000 * MS


def test_broken_connection_fails_its_request_and_is_replaced(
    generator: ConstantRate, one_request: Path
) -> None:
    with scripted_server(lambda number: None if number % 4 == 3 else OK) as server:
        seen = generator.run(
            Load(server.port, one_request, rate=200, seconds=0.2, warmup_s=0, connections=2)
        )
    assert (seen.answered, seen.failed, seen.unanswered) == (30, 10, 0)
    assert (seen.reconnects, seen.errors) == (10, 10)


def test_announced_close_is_no_failure(generator: ConstantRate, one_request: Path) -> None:
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length: 2\r\n\r\nok"
    with scripted_server(lambda number: closing) as server:
        seen = generator.run(
            Load(server.port, one_request, rate=100, seconds=0.2, warmup_s=0, connections=2)
        )
    assert (seen.answered, seen.failed, seen.reconnects) == (20, 0, 20)


def test_statuses_are_reported_and_only_2xx_is_no_error(
    generator: ConstantRate, one_request: Path
) -> None:
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    with scripted_server(lambda number: refused if number % 2 else OK) as server:
        seen = generator.run(
            Load(server.port, one_request, rate=100, seconds=0.2, warmup_s=0, connections=1)
        )
    assert seen.statuses == {"200": 10, "401": 10}
    assert seen.errors == 10


def test_warmup_is_sent_and_not_counted(generator: ConstantRate, one_request: Path) -> None:
    with scripted_server(lambda number: OK) as server:
        seen = generator.run(
            Load(server.port, one_request, rate=100, seconds=0.2, warmup_s=0.3, connections=4)
        )
    assert seen.answered == seen.lag_ns.count == 20
    assert len(server.requests) == 50


def test_closed_loop_sends_again_after_each_response(
    generator: ConstantRate, one_request: Path
) -> None:
    with scripted_server(lambda number: OK) as server:
        seen = generator.run(
            Load(server.port, one_request, rate=0, seconds=0.3, warmup_s=0, connections=3)
        )
    assert seen.answered == len(server.requests) > 0
    assert len(server.peers) == 3


def test_requests_are_sent_in_turn(generator: ConstantRate, tmp_path: Path) -> None:
    paths = ("/a", "/b", "/c")
    requests = write_requests(tmp_path / "three", (render_request("GET", path) for path in paths))
    with scripted_server(lambda number: OK) as server:
        generator.run(Load(server.port, requests, rate=100, seconds=0.1, warmup_s=0, connections=1))
    assert [received.request_line.split()[1] for received in server.requests] == [
        path.encode() for path in (*paths, *paths, *paths, "/a")
    ]


def test_connections_come_from_several_addresses(
    generator: ConstantRate, one_request: Path
) -> None:
    with scripted_server(lambda number: OK) as server:
        generator.run(Load(server.port, one_request, 50, 0.1, warmup_s=0, connections=5, sources=3))
    assert sorted(server.peers) == ["127.0.1.1"] * 2 + ["127.0.1.2"] * 2 + ["127.0.1.3"]


def test_large_response_is_read_to_its_end(generator: ConstantRate, one_request: Path) -> None:
    body = b"x" * 700_000
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with scripted_server(lambda number: response) as server:
        seen = generator.run(
            Load(server.port, one_request, rate=50, seconds=0.2, warmup_s=0, connections=2)
        )
    assert (seen.answered, seen.errors) == (10, 0)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked answers"),
        (b"220 mail.example ESMTP\r\n\r\n", "not HTTP/1.1"),
        (OK + OK, "longer than it says"),
    ],
)
def test_response_that_is_not_understood_ends_it(
    generator: ConstantRate, one_request: Path, response: bytes, reason: str
) -> None:
    with (
        scripted_server(lambda number: response) as server,
        pytest.raises(BenchError, match=reason),
    ):
        generator.run(Load(server.port, one_request, rate=10, seconds=0.2, connections=1))


def test_subject_that_is_not_there_ends_it(generator: ConstantRate, one_request: Path) -> None:
    with scripted_server(lambda number: OK) as server:
        port = server.port
    with pytest.raises(BenchError, match="refused"):
        generator.run(Load(port, one_request, rate=10, seconds=0.2))


def test_cut_off_file_of_requests_ends_it(generator: ConstantRate, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(b"100\nGET / HTTP/1.1\r\n")
    with pytest.raises(BenchError, match="cut off"):
        generator.run(Load(1, path, rate=10, seconds=0.2))


def test_request_carries_its_body() -> None:
    request = render_request("POST", "/token", {"Content-Type": "text/plain"}, b"a=b")
    assert request == (
        b"POST /token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 3\r\n\r\na=b"
    )


def test_output_that_is_none_is_reported() -> None:
    with pytest.raises(BenchError, match="no figures"):
        parse_steady("Segmentation fault")
