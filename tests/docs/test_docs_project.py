"""The documents name the make targets, extras and files that the project has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "bench" / "README.md",
]
TEXTS = {document: document.read_text() for document in DOCUMENTS}
MAKEFILE = (ROOT / "Makefile").read_text().replace("\\\n", " ")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE))
HELPED = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))


def test_each_command_of_make_runs_though_a_folder_has_its_name() -> None:
    assert "soak" in HELPED
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert HELPED - set(phony.split()) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_each_target_of_make_that_a_document_names_is_there(document: Path) -> None:
    named = set(re.findall(r"(?:`|^    )make ([a-z][a-z-]*)", TEXTS[document], re.MULTILINE))
    assert named - TARGETS == set()


def test_each_command_of_make_is_in_a_document() -> None:
    everything = "\n".join(TEXTS.values())
    assert [one for one in sorted(HELPED) if f"make {one}" not in everything] == []


def test_each_extra_is_documented_and_each_documented_extra_is_there() -> None:
    extras = set(PROJECT["optional-dependencies"]) - {"dev"}
    named = {
        extra
        for text in TEXTS.values()
        for extra in re.findall(r"(?:bearer-gateway|\.)\[([a-z0-9,-]+)\]", text)
    }
    assert named == extras


def test_no_document_says_to_install_what_is_not_published() -> None:
    """There is no release: what installs from PyPI by our name fails."""
    sources = [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "config").rglob("*.*"), *DOCUMENTS]
    reported = [path.name for path in sources if "pip install 'bearer-g" in path.read_text()]
    reported += [path.name for path in sources if "pip install bearer-g" in path.read_text()]
    assert reported == []


@pytest.mark.parametrize(
    ("extra", "source"),
    [("otel", "gateway/app/tracing.py"), ("brotli", "gateway/config/route_rules.py")],
)
def test_a_message_names_the_packages_of_its_extra(extra: str, source: str) -> None:
    packages = {re.split("[>=]", one)[0] for one in PROJECT["optional-dependencies"][extra]}
    text = re.sub(r'"\s+"', "", (ROOT / source).read_text())
    (named,) = re.findall(r"pip install ([a-z -]+)", text)
    assert set(named.split()) == packages


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_each_file_that_a_document_names_is_there(document: Path) -> None:
    folders = "bench|config|deploy|docs|examples|fuzz|gateway|soak|tests|.ci"
    for named in re.findall(rf"`((?:{folders})/[\w./-]+)`", TEXTS[document]):
        assert (ROOT / named).exists(), named
    packages = "|".join(path.parent.name for path in (ROOT / "gateway").glob("*/__init__.py"))
    for named in re.findall(rf"`((?:{packages})/[a-z0-9_/]+\.py)`", TEXTS[document]):
        assert (ROOT / "gateway" / named).exists(), named


def test_each_page_is_linked_from_the_index_and_stands_in_the_navigation() -> None:
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    indexed = set(re.findall(r"\]\(([a-z0-9/-]+\.md)[)#]", TEXTS[ROOT / "docs" / "index.md"]))
    assert indexed == pages - {"index.md"}
    site = (ROOT / "zensical.toml").read_text()
    listed = set(re.findall(r'"([a-z0-9/-]+\.md)"', site))
    assert {page for page in listed if not page.startswith(("project/", "examples/"))} == pages
    assert "](docs/index.md)" in TEXTS[ROOT / "README.md"]


def test_limits_are_no_features() -> None:
    limits = TEXTS[ROOT / "docs" / "features.md"].partition("## Limits")[2]
    assert limits
    for feature in ("No HTTP/2", "no gRPC", "Hot reload", "Grants for machines"):
        assert feature not in limits


def test_package_does_not_call_itself_an_application_of_the_framework_of_its_admin_listener() -> (
    None
):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "aiohttp" not in project["keywords"]
    assert not [one for one in project["classifiers"] if one.startswith("Framework")]
