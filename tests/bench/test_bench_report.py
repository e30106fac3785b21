"""What people read: the terminal, the document and the plot."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from support.bench_results import make_results, sample

from bench.__main__ import DOCUMENTS, RESULTS, other_tables
from bench.figures import Figure
from bench.plan import QUICK
from bench.processes import BenchError
from bench.report.markdown import NAMES, render_markdown
from bench.report.numbers import show_figure, show_number
from bench.report.plot import render_plot
from bench.report.tables import doubts, make_tables, throughput
from bench.report.text import render_text
from bench.results import read_results, write_results
from bench.workloads import VARIED

PROSE = "# Performance\n\nWritten by hand.\n\n<!-- bench:{} -->\nold\n<!-- /bench -->\n\nThe end.\n"


def test_results_survive_their_file(tmp_path: Path) -> None:
    results = make_results()
    write_results(results, tmp_path / "new" / "results.json")
    assert read_results(tmp_path / "new" / "results.json") == results


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "run `make bench` first"), ("{}", "missing"), ("{", "truncated")],
)
def test_file_without_results_is_reported(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BenchError, match=reason):
        read_results(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.617, "0.62"), (4.5, "4.50"), (13.24, "13.2"), (130.4, "130"), (13021.0, "13,021")],
)
def test_number_has_the_digits_that_count(value: float, text: str) -> None:
    assert show_number(value) == text


def test_figure_shows_its_range() -> None:
    assert show_figure(Figure(0.62, 0.58, 0.651, 5)) == "0.62 (0.58\N{EN DASH}0.65)"
    assert show_figure(Figure(0.62, 0.62, 0.62, 1)) == "0.62"
    assert show_figure(None) == "\N{EN DASH}"


def test_throughput_lists_the_cheapest_first_and_the_ratio_to_each() -> None:
    table = throughput(make_results(), VARIED)
    assert [row[0] for row in table.rows] == [
        "nginx <auth> | cached", "this gateway", "plain aiohttp †",
    ]  # fmt: skip
    assert [row[2] for row in table.rows] == ["0.62 (0.60\N{EN DASH}0.65)", "1", "4.00"]
    assert [row[4] for row in table.rows] == ["0.62 (0.60\N{EN DASH}0.65)", "1", "4.00"]
    assert [row[8] for row in table.rows] == ["0", "0", "7"]
    assert "not fully busy" in table.note


def test_report_warns_of_figures_that_others_disturbed() -> None:
    results = make_results()
    assert doubts(results) == ""
    results.plan = QUICK
    results.samples = [dataclasses.replace(one, foreign=0.54) for one in results.samples]
    results.samples.append(sample("nginx-auth-cached", 1, 2500.0, is_repeat=True))
    warning = (
        "An order of magnitude, no more: this was a quick run, and others took 54 % of the cores'"
        " time, and the reference differs from itself by 1.13 (1.01\N{EN DASH}1.25)."
    )
    assert doubts(results) == warning
    assert render_text(results).count(warning) == 2
    assert warning in render_markdown(PROSE.format("targets"), results)


def test_terminal_shows_every_table_with_its_verdicts() -> None:
    results = dataclasses.replace(make_results(), instructions="GET: 123,456 instructions")
    text = render_text(results)
    for table in make_tables(results):
        assert table.title in text
        assert all(row[0] in text for row in table.rows)
    assert "GET: 123,456 instructions" in text
    assert "not measured at this size" in text
    assert "apt-get install haproxy" in text


def test_http2_and_growth_are_shown_with_their_ratios() -> None:
    document = PROSE.format("http2") + PROSE.format("growth")
    rendered = render_markdown(document, make_results())
    assert "| gRPC, unary, metadata varies, 4x100 | this gateway | 30.0" in rendered
    assert "| nginx <auth> \\| cached | 60.0 (60.0\N{EN DASH}60.0) | 2.00" in rendered
    assert "| routes | 1: 30.5 (30.0\N{EN DASH}31.0); 1,000: 40.5" in rendered


def test_rendering_leaves_the_prose_alone() -> None:
    rendered = render_markdown(PROSE.format("targets"), make_results())
    assert rendered.startswith("# Performance\n\nWritten by hand.\n\n<!-- bench:targets -->\n")
    assert rendered.endswith("<!-- /bench -->\n\nThe end.\n")
    assert (
        "| CPU of Caddy forward_auth over the gateway's: heads and responses vary | at least 5 x |"
        in rendered
    )
    assert "old" not in rendered


def test_rendering_twice_changes_nothing() -> None:
    document = "".join(PROSE.format(name) for name in sorted(NAMES))
    once = render_markdown(document, make_results())
    assert render_markdown(once, make_results()) == once


def test_cell_can_not_break_its_table() -> None:
    rendered = render_markdown(PROSE.format("varied"), make_results())
    assert "| nginx <auth> \\| cached |" in rendered


def test_part_that_was_not_measured_says_so() -> None:
    assert "Not measured in this run." in render_markdown(PROSE.format("1m"), make_results())


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (PROSE.format("speed"), "there is no part 'speed'"),
        ("<!-- bench:get -->\nold\n", "don't pair"),
        ("<!-- bench:get -->\n<!-- bench:1m -->\n<!-- /bench -->\n", "don't pair"),
        ("<!-- bench get -->\n<!-- /bench -->\n", "don't pair"),
    ],
)
def test_document_with_wrong_marks_is_refused(document: str, reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        render_markdown(document, make_results())


def test_our_documents_ask_for_every_part() -> None:
    text = "".join(document.read_text() for document in DOCUMENTS)
    assert [name for name in sorted(NAMES) if f"<!-- bench:{name} -->" not in text] == []
    assert "performance.svg" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_our_documents_quote_the_results_that_are_committed(document: Path) -> None:
    text = document.read_text()
    results = read_results(RESULTS / "full.json")
    rendered = render_markdown(text, results, other_tables())
    assert rendered == text, "make bench-report"


def test_plot_is_sound_and_holds_every_subject() -> None:
    drawing = ET.fromstring(render_plot(make_results()))
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"this gateway", "nginx <auth> | cached", "plain aiohttp"} <= set(texts)
    bars = list(drawing.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(bars) == 3 + 3 + 2
    assert all(float(bar.attrib["width"]) > 0 for bar in bars)


def test_plot_follows_light_and_dark() -> None:
    assert "prefers-color-scheme: dark" in render_plot(make_results())


def test_plot_of_nothing_is_sound() -> None:
    empty = dataclasses.replace(make_results(), samples=[], steady=[])
    ET.fromstring(render_plot(empty))
