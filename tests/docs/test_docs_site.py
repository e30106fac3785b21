"""The site stages each document with links that lead to its pages, or to the repository."""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    """The script that builds the site."""
    spec = importlib.util.spec_from_file_location("site_script", ROOT / ".ci" / "site.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SITE = load()


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("../reference/reasons.md#tokens", "../reference/reasons.md#tokens"),
        ("../../CHANGELOG.md", "../project/changelog.md"),
        ("../../README.md#limits", "../index.md#limits"),
        ("../../config/edge.yaml", "../examples/edge-yaml.md"),
        ("../../config/authz/nginx.conf", "../examples/authz-nginx-conf.md"),
        ("../../gateway/http/fields.py", f"{SITE.REPOSITORY}/blob/main/gateway/http/fields.py"),
        ("../../deploy/k8s", f"{SITE.REPOSITORY}/tree/main/deploy/k8s"),
        ("#here", "#here"),
        ("https://example.com/a.md", "https://example.com/a.md"),
    ],
)
def test_a_link_leads_to_the_page_that_a_file_becomes(link: str, becomes: str) -> None:
    place = PurePosixPath("docs/guides/reload.md")
    assert SITE.relink(f"see [it]({link}).", place) == f"see [it]({becomes})."


def test_a_link_from_a_document_of_the_repository_leads_into_the_site() -> None:
    text = SITE.relink(
        "[a](docs/reference/cli.md) [b](SECURITY.md)",
        PurePosixPath("CONTRIBUTING.md"),
        "project/contributing.md",
    )
    assert text == "[a](../reference/cli.md) [b](security.md)"


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="a/#x">1</a><a href="a/#y">2</a><img src="b.svg">'
    )
    (tmp_path / "a" / "index.html").write_text('<h2 id="x">x</h2><a href="../">up</a>')
    assert SITE.dead_links(tmp_path) == ["index.html: a/#y", "index.html: b.svg"]


def test_each_example_is_a_page_with_what_it_is_for() -> None:
    for path in (ROOT / "config").rglob("*.yaml"):
        assert SITE._about(path.read_text()), f"{path.name} begins with no comment"
