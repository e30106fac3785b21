"""What is read from wrk."""

from __future__ import annotations

import pytest

from bench.processes import BenchError
from bench.wrk import parse_wrk

OUTPUT = """Running 1s test @ http://127.0.0.1:18010/api/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.26ms  133.64us   9.01ms   91.30%
    Req/Sec    50.61k     1.02k   52.10k    80.00%
  50613 requests in 1.10s, 9.41MB read
  Non-2xx or 3xx responses: 3
Requests/sec:  46011.81
Transfer/sec:      8.55MB
bench: {"duration_us": 1100000, "requests": 50613, "bytes": 9867264, "p50_us": 1191, \
"p99_us": 1912, "max_us": 9012, "socket_errors": 2, "status_errors": 3}
"""


def test_figures_of_wrk_are_read() -> None:
    seen = parse_wrk(OUTPUT)
    assert seen.requests_per_s == pytest.approx(50613 / 1.1)
    assert seen.bytes_per_s == pytest.approx(9867264 / 1.1)
    assert (seen.p50_us, seen.p99_us, seen.max_us) == (1191, 1912, 9012)
    assert (seen.socket_errors, seen.status_errors) == (2, 3)


@pytest.mark.parametrize(
    "output",
    ["", "unable to connect to 127.0.0.1:1 Connection refused\n", 'bench: {"requests": 1}\n'],
)
def test_output_without_figures_is_reported(output: str) -> None:
    with pytest.raises(BenchError, match="wrk told"):
        parse_wrk(output)
