"""What the documents promise is there: tests that they name, configurations that they show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import parse_config

ROOT = Path(__file__).parents[2]
CONFORMANCE = (ROOT / "docs" / "reference" / "rfc-conformance.md").read_text()


def test_each_must_is_covered_by_a_test_that_exists() -> None:
    named = re.findall(r"\| `([a-z0-9_/]+)::([a-z0-9_]+)` \|", CONFORMANCE)
    assert len(named) > 80
    for file, test in sorted(set(named)):
        source = (ROOT / "tests" / f"{file}.py").read_text()
        assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), f"{file}::{test}"


@pytest.mark.parametrize(("document", "rows"), [("security", 50), ("threat-model", 14)])
def test_each_attack_and_control_names_a_test_that_exists(document: str, rows: int) -> None:
    text = (ROOT / "docs" / "explanation" / f"{document}.md").read_text()
    tables = re.findall(r"^\|[^\n]*\| Test \|\n\|[-|]+\|\n((?:\|[^\n]*\n)+)", text, re.MULTILINE)
    named = []
    for row in "".join(tables).splitlines():
        cell = re.search(r"\| `([a-z0-9_/]+)::([a-z0-9_]+)` \|$", row)
        assert cell, row
        named.append(cell.groups())
    assert len(named) >= rows
    for file, test in sorted(set(named)):
        source = (ROOT / "tests" / f"{file}.py").read_text()
        assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), f"{file}::{test}"


def test_each_row_names_a_test() -> None:
    rows = [line for line in CONFORMANCE.splitlines() if re.match(r"\| [0-9]", line)]
    assert rows
    for row in rows:
        assert row.count("::") == 1, row


@pytest.mark.parametrize(
    "document",
    [
        "docs/tutorials/first-call.md",
        "docs/guides/from-mulesoft.md",
        "docs/guides/tokens-of-an-identity-provider.md",
        "docs/tutorials/fastapi.md",
        "docs/tutorials/mulesoft.md",
    ],
)
def test_whole_configuration_in_a_document_is_sound(document: str, tmp_path: Path) -> None:
    (tmp_path / "registration-token").write_text("x")
    text = (ROOT / document).read_text()
    found = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    found += re.findall(r" > gateway\.yaml <<'END'\n(.*?)^END$", text, re.DOTALL | re.MULTILINE)
    assert found
    for text in found:
        config = parse_config(
            text, file=document, environ={"REGISTRATION_TOKEN": "x"}, directory=tmp_path
        )
        assert config.routes
