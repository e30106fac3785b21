"""Charts: SVG that any parser reads, made of numbers."""

from __future__ import annotations

from defusedxml.ElementTree import fromstring

from gateway.admin.console.charts import (
    chart,
    duration,
    heat_strip,
    number,
    percent,
    sparkline,
)
from gateway.history.spans import TimeAxis

SVG = "svg"


def test_sparkline_scales_to_its_highest_value_and_leaves_gaps() -> None:
    image = fromstring(sparkline([0, 10, None, 5, 5], label='requests "now" <5>'))
    assert image.tag == SVG
    assert image.get("role") == "img"
    assert image.get("aria-label") == 'requests "now" <5>'
    (line,) = [path for path in image.iter("path") if path.get("class") == "spark-line"]
    assert line.get("d", "").count("M") == 2, "the gap splits the line"
    assert " 2.0" in line.get("d", ""), "the highest value is at the top"
    assert "style" not in sparkline([1, 2], label="x")


def test_sparkline_of_nothing_is_an_empty_image() -> None:
    image = fromstring(sparkline([None, None], label="nothing"))
    assert [path.get("d") for path in image.iter("path")] == ["", ""]


def test_heat_strip_has_a_cell_for_each_bucket_that_was_hit() -> None:
    bounds = (0.001, 0.01, 0.1, 1.0)
    columns = [[0, 8, 2, 0, 0], [0, 0, 0, 0, 0], [0, 10, 0, 0, 1]]
    image = fromstring(heat_strip(columns, bounds=bounds, label="latency"))
    cells = list(image.iter("path"))
    assert sum(path.get("d", "").count("M") for path in cells) == 4
    assert {path.get("class") for path in cells} == {"heat-1", "heat-2", "heat-5"}
    texts = [text.text for text in image.iter("text")]
    assert texts[0] == "> 1 s"


def test_numbers_are_written_for_users() -> None:
    assert [duration(value) for value in (None, 0.0000004, 0.0125, 0.5, 2.25, 120.0)] == [
        "\u2013", "0.4 µs", "12.5 ms", "500 ms", "2.25 s", "120 s",
    ]  # fmt: skip
    assert [number(value) for value in (None, 0, 0.26, 12.4, 1234567)] == [
        "\u2013", "0", "0.3", "12", "1\u202f234\u202f567",
    ]  # fmt: skip
    assert [percent(value) for value in (None, 0, 1, 0.997, 0.0012)] == [
        "\u2013", "0 %", "100 %", "100 %", "0.12 %",
    ]  # fmt: skip


def test_chart_has_axes_and_the_values_of_its_steps_in_words() -> None:
    axis = TimeAxis(ends_at=86_400 + 3600.0, step_s=900.0, count=4)
    drawn = fromstring(
        chart(sparkline([1, 2, None, 4], label="x"), axis, ["1", '<"2">', "\u2013", "4"],
              name="Requests", top="4")
    )  # fmt: skip
    assert drawn.get("data-values", "").split("|") == ["1", '<"2">', "\u2013", "4"]
    assert (drawn.get("data-start"), drawn.get("data-step")) == ("86400", "900")
    assert [span.text for span in drawn.iter("span")] == ["4", "0", "00:00", "00:30", "01:00 UTC"]
    assert axis.times[1] == 86_400 + 900
    assert axis.coarser(3) == TimeAxis(axis.ends_at, 2700.0, 2)
