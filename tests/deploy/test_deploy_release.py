"""Workflows that build and publish a release, as far as they can be tried without GitHub."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from support.deploy_tools import ROOT, run_tool

from gateway import __version__

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
SCHEMA = json.loads((Path(__file__).with_name("github-workflows.schema.json")).read_text())
"""Of json.schemastore.org (Apache-2.0)."""
MAKEFILE = (ROOT / "Makefile").read_text()


def load_release() -> ModuleType:
    """The script of releases."""
    spec = importlib.util.spec_from_file_location("release_script", ROOT / ".ci" / "release.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RELEASE = load_release()


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_is_one_by_its_schema(workflow: Path) -> None:
    # YAML 1.1 reads the key `on` as true; GitHub's reader does not.
    text = re.sub(r"^on:", '"on":', workflow.read_text(), flags=re.MULTILINE)
    errors = Draft7Validator(SCHEMA).iter_errors(yaml.safe_load(text))
    assert [f"{list(error.path)}: {error.message[:200]}" for error in errors] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_each_action_is_pinned_by_commit_and_each_job_has_a_limit(workflow: Path) -> None:
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
    parsed = yaml.safe_load(workflow.read_text())
    assert parsed["permissions"] == {"contents": "read"}
    for name, job in parsed["jobs"].items():
        assert job["timeout-minutes"] <= 90, name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_each_command_of_a_workflow_is_bash_and_each_target_is_there(workflow: Path) -> None:
    for step in steps(workflow):
        script = step.get("run", "")
        subprocess.run(["bash", "-n", "-c", script], check=True)
        assert "${{" not in script, "an expression in a script is an injection"
        for targets in re.findall(r"^make ((?:[a-z-]+ ?)+)", script, re.MULTILINE):
            for target in targets.split():
                assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
        for file in re.findall(r"(?:^|\s)(\.ci/[\w.]+)", script):
            assert (ROOT / file).exists(), file


def test_all_places_name_one_version_and_the_changelog_has_its_section() -> None:
    assert list(RELEASE.problems(f"v{__version__}")) == []
    assert "### Breaking" in RELEASE.notes(__version__)
    assert "## [" not in RELEASE.notes(__version__)


def test_another_version_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(RELEASE.problems("v9.9.9")) == [
        f"the tag is v9.9.9, and gateway/__init__.py has {__version__}"
    ]
    monkeypatch.setattr(RELEASE, "version", lambda: "9.9.9")
    found = list(RELEASE.problems())
    assert len(found) == len(RELEASE.PLACES) + 1
    assert any(line.startswith("CHANGELOG.md") for line in found)


def test_chart_is_packaged_under_its_version(tmp_path: Path) -> None:
    run_tool("helm", "package", ROOT / "deploy/helm/bearer-gateway", "--destination", tmp_path)
    assert (tmp_path / f"bearer-gateway-{__version__}.tgz").exists()
