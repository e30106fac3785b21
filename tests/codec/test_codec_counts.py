"""Counts and histograms of the native codec are those of Python."""

from __future__ import annotations

import math
from collections import defaultdict
from types import ModuleType

import pytest
from support.codec import native_codec

from gateway.codec import absent
from gateway.metrics.counts import DURATION_BUCKETS_S
from gateway.metrics.requests import METHODS


@pytest.fixture(scope="module")
def codec() -> ModuleType:
    return native_codec()


def test_observations_fall_into_the_buckets_that_python_counts_them_in(codec: ModuleType) -> None:
    ours, theirs = codec.BucketCounts(DURATION_BUCKETS_S), absent.BucketCounts(DURATION_BUCKETS_S)
    near = [math.nextafter(bound, towards) for bound in DURATION_BUCKETS_S for towards in (0, 99)]
    for value in (0.0, 99.0, *DURATION_BUCKETS_S, *near):
        ours.observe(value)
        theirs.observe(value)
    assert ours.counts == theirs.counts
    assert ours.total == theirs.total
    assert ours.bounds == theirs.bounds


def test_requests_are_counted_by_the_methods_that_are_labels(codec: ModuleType) -> None:
    requests: defaultdict[tuple[str, int, str], int] = defaultdict(int)
    for method in (*sorted(METHODS), "PROPFIND", "get", "GET"):
        assert codec.count_request(requests, method, 200, "upstream")
    assert requests.pop(("GET", 200, "upstream")) == 2
    assert requests.pop(("_OTHER", 200, "upstream")) == 2
    assert requests == {(method, 200, "upstream"): 1 for method in METHODS - {"GET"}}
