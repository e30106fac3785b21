"""Tables and links of the documents are what a renderer takes for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "bench" / "README.md",
]
RULE = re.compile(r"\|(?: ?:?-+:? ?\|)+")


def broken_tables(text: str) -> list[str]:
    """Lines that begin like a row and would be shown as text, or that lose or lack cells."""
    found: list[str] = []
    fence = width = 0
    above = ""
    for line in text.splitlines():
        fence ^= line.startswith("```")
        is_row = not fence and line.startswith("|")
        if is_row and not width:
            if RULE.fullmatch(line) and above.startswith("|") and cells(above) == cells(line):
                found.remove(above)
                width = cells(line)
            else:
                found.append(line)
        elif is_row and cells(line) != width:
            found.append(line)
        elif not is_row:
            width = 0
        above = line
    return found


def cells(row: str) -> int:
    """How many cells a row has: within them, a bar is escaped."""
    return len(re.findall(r"(?<!\\)\|", row)) - 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_each_table_is_one(document: Path) -> None:
    assert broken_tables(document.read_text()) == []


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("| a | b |\n|---|---|\n| 1 | 2 |\n", []),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n", ["| 3 | 4 |"]),
        ("| a | b |\n|---|\n| 1 | 2 |\n", ["| a | b |", "|---|", "| 1 | 2 |"]),
        ("| a | b |\n|---|---|\n| 1 | 2 | 3 |\n", ["| 1 | 2 | 3 |"]),
        ("| a |\n|---|\n| `x\\|y` |\n", []),
        ("```\n| no table\n```\n", []),
    ],
)
def test_a_table_that_is_none_is_found(text: str, broken: list[str]) -> None:
    assert broken_tables(text) == broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_no_conflict_of_a_merge_is_left(document: Path) -> None:
    assert not re.search(r"^(<{7}|>{7}|={7}$)", document.read_text(), re.MULTILINE)


def test_links_within_the_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target, anchor in re.findall(
            r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", document.read_text()
        ):
            path = (document.parent / target).resolve() if target else document
            assert path.exists(), f"{document.name}: {target}"
            if anchor and path.suffix == ".md":
                assert anchor in _anchors(path), f"{document.name}: {target}#{anchor}"


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
