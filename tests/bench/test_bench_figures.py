"""Medians, ratios and verdicts."""

from __future__ import annotations

import dataclasses

import pytest
from support.bench_results import make_results

from bench.figures import Figure, by_round, noise, ratio, requests_per_s, summarise
from bench.results import Measurement, Results
from bench.targets import TARGETS, Verdict, evaluate


def verdict_on(results: Results, title: str) -> Verdict:
    (found,) = [one for one in evaluate(results) if one.target.title == title]
    return found


def test_figure_is_a_median_with_its_range() -> None:
    assert summarise([3.0, 1.0, 2.0, 10.0]) == Figure(2.5, 1.0, 10.0, 4)
    assert summarise([]) is None


NGINX = "CPU of nginx cached auth_request over the gateway's"


def test_ratio_is_taken_round_by_round() -> None:
    # The medians' ratio would be 15 / 15; what held in each round was 2 and 0.5.
    figure = ratio({0: 20.0, 1: 10.0}, {0: 10.0, 1: 20.0})
    assert figure == Figure(1.25, 0.5, 2.0, 2)


def test_ratio_leaves_out_rounds_that_lack_one() -> None:
    assert ratio({0: 6.0, 1: 9.0, 2: 1.0}, {0: 3.0, 2: 0.0, 5: 1.0}) == Figure(2.0, 2.0, 2.0, 1)
    assert ratio({0: 6.0}, {1: 3.0}) is None


def test_drift_of_the_machine_cancels_out() -> None:
    figure = verdict_on(make_results(), f"{NGINX}: heads and responses vary").figure
    assert figure is not None
    assert [figure.low, figure.high] == pytest.approx([0.6, 0.65])


def test_repeat_of_the_reference_is_no_sample_of_it() -> None:
    results = make_results()
    rounds = by_round(results, "nginx-auth-cached", "varied", requests_per_s)
    assert rounds == {0: 1000.0, 1: 2000.0}


def test_noise_is_the_reference_over_itself() -> None:
    results = make_results()
    figure = noise(results)
    assert figure is not None
    assert [figure.median, figure.low, figure.high] == pytest.approx([0.98, 0.95, 1.01])
    results.samples = [one for one in results.samples if not one.is_repeat]
    assert noise(results) is None


@pytest.mark.parametrize(
    ("title", "is_reached", "is_clear"),
    [
        (f"{NGINX}: heads and responses vary", False, True),
        ("memory, just started", True, True),
        (
            "gRPC unary, metadata varies: CPU over nginx grpc_pass with cached auth_request",
            True,
            True,
        ),
        # 1.1 in one round, 2 in the other: their median is above the bound.
        ("p99 over nginx cached auth_request, each at half of its own saturation", False, False),
        ("CPU of plain aiohttp over the gateway's: heads and responses vary", False, True),
    ],
)
def test_target_is_evaluated_by_the_median(title: str, is_reached: bool, is_clear: bool) -> None:
    verdict = verdict_on(make_results(), title)
    assert (verdict.is_reached, verdict.is_clear) == (is_reached, is_clear)


def test_what_was_not_measured_is_not_evaluated() -> None:
    verdict = verdict_on(
        make_results(), "CPU of Caddy forward_auth over the gateway's: heads and responses vary"
    )
    assert (verdict.figure, verdict.is_reached) == (None, None)


def test_what_was_measured_smaller_than_meant_is_not_evaluated() -> None:
    results = make_results()
    verdict = verdict_on(results, "10,000 idle connections")
    assert verdict.figure is not None
    assert verdict.is_reached is None
    results.measurements["idle_connections"] = Measurement((10_000.0,), "connections")
    assert verdict_on(results, "10,000 idle connections").is_reached is True


def test_every_target_can_be_evaluated_without_any_figure() -> None:
    empty = dataclasses.replace(make_results(), samples=[], steady=[], measurements={}, h2=[])
    assert [one.is_reached for one in evaluate(empty)] == [None] * len(TARGETS)
