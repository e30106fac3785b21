"""The drawings of architecture.md agree with the rules of imports, and what the documents
name in the code is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
SOURCE = "\n".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def layers() -> dict[str, int]:
    """Each package of the gateway with the number of its layer, the uppermost first."""
    (contract,) = [
        one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers"
    ]
    return {
        name.strip().removeprefix("gateway."): number
        for number, layer in enumerate(contract["layers"])
        for name in layer.split("|")
    }


def test_each_arrow_between_layers_points_the_way_that_imports_run() -> None:
    text = ARCHITECTURE.partition("## Layers")[2].partition("## ")[0]
    known = layers()
    edges = []
    for line in re.sub(r"\[.*?\]", "", text).splitlines():
        upper, arrow, lower = line.strip().partition(" --> ")
        if arrow:
            edges += [(one, other) for one in upper.split(" & ") for other in lower.split(" & ")]
    assert len(edges) > 12
    drawn = {name for edge in edges for name in edge} - {"base"}
    assert drawn <= set(known)
    packages = {path.parent.name for path in (ROOT / "gateway").glob("*/__init__.py")}
    assert packages - drawn - set(re.findall(r"\w+", text)) == {"history"}, "draw it"
    for upper, lower in edges:
        assert lower == "base" or known[upper] < known[lower], f"{upper} --> {lower}"


def test_each_class_that_the_architecture_names_is_there() -> None:
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-zA-Z]+)+)`", ARCHITECTURE))
    others = {"TTLCache", "ClientSession"}  # of libraries
    missing = {one for one in named - others if not re.search(rf"\bclass {one}\b", SOURCE)}
    assert missing == set()


def test_each_file_that_the_architecture_names_is_there() -> None:
    for named in re.findall(r"`((?:[a-z]+/)+[a-z_0-9]+\.py)`", ARCHITECTURE):
        assert (ROOT / named).exists() or (ROOT / "gateway" / named).exists(), named


def test_where_to_find_has_a_row_for_thirty_behaviours_and_more() -> None:
    table = CONTRIBUTING.partition("## Where to find")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| (`gateway/[^|]+) \|$", table, re.MULTILINE)
    assert len(rows) >= 30
    for behaviour, files in rows:
        for named in re.findall(r"`([^`]+)`", files):
            assert (ROOT / named).exists(), f"{behaviour}: {named}"


def test_the_layout_lists_each_package() -> None:
    layout = CONTRIBUTING.partition("## Layout")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^  ([a-z_]+)/ ", layout, re.MULTILINE))
    assert listed == {path.parent.name for path in (ROOT / "gateway").glob("*/__init__.py")}


def test_each_message_of_a_failed_start_is_one_that_the_gateway_or_the_system_gives() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text().partition("## It does not start")[2]
    rows = re.findall(r"^\| (`[^|]+) \| ", text.partition("\n## ")[0], re.MULTILINE)
    messages = {one for row in rows for one in re.findall(r"`([^`]+)`", row)}
    of_the_system = {"No such file or directory", "address already in use"}
    assert len(messages) > 6
    for message in messages - of_the_system - {"FILE:LINE: KEY: ..."}:
        assert message.removesuffix(" ...") in SOURCE, message
