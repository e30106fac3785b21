"""Lock files, versions and the audit."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from support.deploy_tools import ROOT
from support.tiers import slow

from gateway import __version__

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
# The image can do whatever a configuration asks for.
RUN_TIME: list[str] = [
    *PYPROJECT["project"]["dependencies"],
    *(text for name, extra in EXTRAS.items() if name != "dev" for text in extra),
]
WANTED = {
    "requirements.lock": RUN_TIME,
    "requirements-dev.lock": [*RUN_TIME, *EXTRAS["dev"]],
    "requirements-build.lock": PYPROJECT["build-system"]["requires"],
}


@pytest.mark.parametrize("lock", WANTED)
def test_lock_is_in_step_with_the_project(lock: str) -> None:
    pins = _pins(lock)
    wanted = [Requirement(text) for text in WANTED[lock]]
    for one in wanted:
        name = canonicalize_name(one.name)
        assert name in pins, f"{name} is not in {lock}: run `make lock`"
        for version in pins[name]:
            assert one.specifier.contains(version), f"{one} is not {version}: run `make lock`"
    if lock != "requirements-build.lock":
        # And nothing that is wanted no longer.
        text = (ROOT / lock).read_text()
        entries = re.findall(r"^([\w.-]+)==.*\n(?: +--hash.*\n)+((?: +#.*\n)+)", text, re.M)
        direct = {
            canonicalize_name(name) for name, via in entries if "bearer-gateway (pyproject" in via
        }
        assert direct == {canonicalize_name(one.name) for one in wanted}, "run `make lock`"


@pytest.mark.parametrize("lock", WANTED)
def test_each_package_is_locked_by_hash(lock: str) -> None:
    text = (ROOT / lock).read_text()
    blocks = re.findall(r"^[\w.-]+==\S+.*\\\n(?: +--hash=sha256:[0-9a-f]{64}.*\n)+", text, re.M)
    assert len(blocks) == sum(map(len, _pins(lock).values())) > 0


def test_what_is_locked_for_development_is_what_runs() -> None:
    assert _pins("requirements.lock").items() <= _pins("requirements-dev.lock").items()


def test_version_comes_from_one_place() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"] == {
        "version": {"attr": "gateway.__version__"}
    }
    source = (ROOT / "gateway" / "__init__.py").read_text()
    assert re.findall(r'^__version__ = "(.*)"$', source, re.M) == [__version__]
    Version(__version__)
    # What has to repeat it, since no tool of its kind could read it there.
    for path, pattern in {
        "compose.yaml": r"image: bearer-gateway:(\S+)",
        "Dockerfile": r"docker build -t bearer-gateway:(\S+) ",
        "deploy/k8s/overlays/sidecar/kustomization.yaml": r"newTag: (\S+)",
        "deploy/k8s/overlays/edge/kustomization.yaml": r"newTag: (\S+)",
        "deploy/helm/bearer-gateway/Chart.yaml": r"(?:V|^v)ersion: (\d\S+)",
    }.items():
        found = re.findall(pattern, (ROOT / path).read_text(), re.M)
        assert found, path
        assert set(found) == {__version__}, path


@slow("environment")
def test_hot_path_is_compiled_where_only_the_build_requirements_are(tmp_path: Path) -> None:
    # mypy stops a build over what it can't know the type of.
    venv.create(tmp_path / "build")
    (packages,) = (tmp_path / "build").glob("lib/python*/site-packages")
    for text in PYPROJECT["build-system"]["requires"]:
        name = Requirement(text).name
        if name not in {"setuptools", "mypy"}:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            (packages / name).symlink_to(Path(spec.origin).parent)
    setup = (ROOT / "setup.py").read_text()
    hot_path = re.findall(r'^    "(gateway/.*)",$', setup, re.M)
    (options,) = re.findall(r"options = (\[.*\])", setup)
    assert len(hot_path) > 20
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", *ast.literal_eval(options), *hot_path,
            "--python-executable", tmp_path / "build" / "bin" / "python",
            "--cache-dir", tmp_path / "cache",
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


SOUND = {"name": "aiohttp", "version": "3.14.1", "vulns": []}
BAD = {
    "name": "aiohttp",
    "version": "3.9.0",
    "vulns": [{"id": "PYSEC-2024-24", "fix_versions": ["3.9.2"]}],
}
UNKNOWN = {"name": "aiohttp", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("dependencies", "status", "text"),
    [
        ([SOUND], 0, "no known vulnerability in 1 packages"),
        ([SOUND, BAD], 1, "aiohttp 3.9.0: PYSEC-2024-24, fixed in 3.9.2"),
        # A vulnerability is told of also where not all could be asked about.
        ([UNKNOWN, BAD], 1, "PYSEC-2024-24"),
        ([SOUND, UNKNOWN], 3, "NOT DONE for 1 packages"),
    ],
)
def test_audit_does_not_take_silence_for_a_clean_bill(
    dependencies: list[dict[str, Any]], status: int, text: str
) -> None:
    said = _audit().verdict({"dependencies": dependencies})
    assert said[0] == status
    assert text in said[1]


@pytest.mark.parametrize(
    ("lock", "text"),
    [
        ("ngh2==0.3.0 \\\n    --hash=sha256:0\nattrs==1\n", ""),
        ("ngh2==9.9.9 ; python_version < '4'\n", "which libnghttp2 is in ngh2 9.9.9"),
        ("ngh2==0.0.1\n", "libnghttp2 1.60.0 in ngh2 0.0.1 is older than"),
    ],
)
def test_audit_knows_the_library_in_the_http2_engine(
    lock: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = _audit()
    monkeypatch.setitem(audit.BUNDLED, "0.0.1", "1.60.0")
    problem = audit.bundled_problem(lock)
    assert text in problem
    assert bool(problem) == bool(text)


def _audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pins(lock: str) -> dict[str, list[str]]:
    """Versions by package: several where platforms differ."""
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.M):
        pins.setdefault(name, []).append(version)
    return pins
