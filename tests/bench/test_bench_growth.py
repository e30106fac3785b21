"""Each curve, at its smallest and with a real gateway."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.tiers import slow

from bench.constant_rate import COMPILER, INSTALL
from bench.cores import available_cpus, place
from bench.lab import Lab
from bench.measures.growth import CURVES, many_targets, measure_point
from bench.plan import Plan
from bench.subjects.nginx import NGINX
from examples.ports import free_block

pytestmark = [slow("bench"), pytest.mark.system]


def test_each_curve_is_measured(tmp_path: Path) -> None:
    missing = NGINX.missing() or (None if shutil.which(COMPILER) else INSTALL)
    placement = place(available_cpus())
    if missing or placement is None:
        pytest.skip(missing or "needs two cores")
    plan = Plan(first_port=free_block(), warmup_s=0.1, seconds=1, stored_tokens=300)
    lab = Lab(plan, placement, tmp_path, report=print)
    with lab.origin(), many_targets(lab):
        points = [measure_point(lab, curve, curve.sizes[0], 0) for curve in CURVES]
        points.append(measure_point(lab, CURVES[0], 10, 0))
    assert [(point.curve, point.errors) for point in points] == [
        *((curve.name, 0) for curve in CURVES), (CURVES[0].name, 0),
    ]  # fmt: skip
    assert all(point.cpu_us > 0 and point.memory_mib > 1 for point in points)
