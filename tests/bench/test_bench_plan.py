"""What is asked for, in which order, and of whom."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from bench.__main__ import make_plan, parse_options
from bench.machine import ROOT
from bench.measures.throughput import order_of
from bench.plan import FULL, QUICK, Plan
from bench.processes import BenchError
from bench.subjects import GATEWAY, REFERENCE, SUBJECTS, Site, Tool
from bench.workloads import VARIED, WORKLOADS


def plan_of(*arguments: str) -> Plan:
    return make_plan(parse_options(arguments))


def test_full_is_the_default_and_quick_is_asked_for() -> None:
    assert plan_of() == FULL
    assert plan_of("--quick") == QUICK


def test_what_is_asked_for_replaces_the_plan() -> None:
    plan = plan_of(
        *("--quick", "--rounds", "4", "--seconds", "7", "--parts", "latency", "token"),
        *("--subjects", "gateway", "nginx", "--workloads", "1m", "--first-port", "20000"),
    )
    assert (plan.rounds, plan.steady_rounds, plan.seconds, plan.steady_seconds) == (4, 4, 7, 7)
    assert (plan.parts, plan.subjects) == (("latency", "token"), ("gateway", "nginx"))
    assert (plan.workloads, plan.first_port) == (("1m",), 20000)
    assert plan.stored_tokens == QUICK.stored_tokens


@pytest.mark.parametrize("argument", ["--subjects", "--workloads", "--parts"])
def test_unknown_name_is_refused(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options([argument, "apache"])
    assert "apache" in capsys.readouterr().err


def test_round_goes_the_other_way_every_other_time() -> None:
    forth = list(order_of(SUBJECTS, VARIED, 0))
    assert list(order_of(SUBJECTS, VARIED, 1)) == forth[::-1]
    assert [subject for subject, is_repeat in forth if not is_repeat] == list(SUBJECTS)


def test_reference_is_measured_twice_for_the_noise() -> None:
    turn = list(order_of(SUBJECTS, VARIED, 0))
    assert turn.count((REFERENCE, False)) == turn.count((REFERENCE, True)) == 1
    assert not any(is_repeat for _, is_repeat in order_of([GATEWAY], VARIED, 0))


def test_subject_takes_part_in_its_workloads_only() -> None:
    for workload in WORKLOADS:
        names = {subject.name for subject, _ in order_of(SUBJECTS, workload, 0)}
        assert names == {one.name for one in SUBJECTS if workload.name in one.workloads}
        assert len(names) > 1
        assert "gateway" in names


def test_workloads_of_subjects_are_known() -> None:
    known = {workload.name for workload in WORKLOADS}
    assert all(subject.workloads <= known for subject in SUBJECTS)


def make_site(directory: Path) -> Site:
    return Site(directory, 18100, 18101, "127.0.0.1:1", "127.0.0.1:2", directory / "g.db")


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_config_of_a_subject_is_filled_in(subject: object, is_tls: bool, tmp_path: Path) -> None:
    (chosen,) = [one for one in SUBJECTS if one is subject]
    launch = chosen.launch(dataclasses.replace(make_site(tmp_path), is_tls=is_tls))
    assert launch.ready_port in {18100, 18101}
    for path in tmp_path.iterdir():
        assert "@" not in path.read_text().replace('"@type"', ""), path


def test_name_that_nothing_stands_for_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="nothing stands for @TLS@"):
        make_site(tmp_path).write_config("gateway.yaml", ACCESS_LOG="off")


def test_tool_that_is_missing_reports_how_to_get_it() -> None:
    tool = Tool("no-such-proxy", "apt-get install no-such-proxy", ("-v",))
    assert tool.missing() == (
        "no-such-proxy is not installed; get it by: apt-get install no-such-proxy"
    )
    assert Tool("sh", "apt-get install dash", ("-c", "echo v1.2.3-4")).missing() is None


def test_version_is_read_from_either_stream() -> None:
    tool = Tool("sh", "", ("-c", "echo shell version: sh/1.2.3-4 >&2"))
    assert tool.read_version() == "1.2.3-4"
    assert Tool("true", "", ()).read_version() == "unknown"


def test_bench_knows_the_gateway_by_its_command_line_only() -> None:
    for path in (ROOT / "bench").rglob("*.py"):
        if path.name in {"hot_path.py", "hot_path_h2.py", "instructions.py", "stores.py"}:
            continue  # they measure parts of it within the process
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
        }
        assert not [name for name in imported if name.split(".")[0] == "gateway"], path
