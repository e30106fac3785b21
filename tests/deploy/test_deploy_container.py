"""The image as the Dockerfile makes it, and containers of it: built and run without Docker.

apt-get install buildah debootstrap
pytest tests/deploy/test_deploy_container.py      # as root; four minutes, later a few seconds
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from support.container_image import Image, ImageProcess, built_image
from support.deadlines import scaled
from support.deploy_tools import ROOT
from support.servers.raw_upstream import RawUpstream, thread_upstream
from support.tiers import slow

from gateway import __version__

pytestmark = slow("image")

ADDED_BYTES = 150 * 1024 * 1024
"""More than the image may add to its base; it is 120 MiB."""
COMPILERS = re.compile(r"^(.*-)?(gcc|g\+\+|cc|c\+\+|clang|tcc|as|ld|make|cython)(-[\d.]+)?$")


@pytest.fixture(scope="module")
def image() -> Image:
    """The image of this checkout."""
    return built_image()


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    """An upstream beside the container."""
    with thread_upstream() as running:
        yield running


@pytest.fixture
def container(image: Image, upstream: RawUpstream, tmp_path: Path) -> Iterator[ImageProcess]:
    """A container that is not started yet."""
    made = ImageProcess(image, tmp_path, upstream.url)
    yield made
    if hasattr(made, "process"):
        made.process.kill()
        made.process.wait()


def test_container_serves_without_root_and_with_nothing_but_its_data_to_write(
    container: ImageProcess,
) -> None:
    container.run()
    container.create_client()
    headers = {"Authorization": f"Bearer {container.get_token()}"}
    assert httpx.get(f"{container.url}/api/x", headers=headers).text == "ok"
    assert httpx.get(f"{container.url}/api/x").status_code == 401

    first = container.first()
    for process in (first, *first.children(recursive=True)):
        assert process.uids().real == process.uids().effective == 10001
        assert process.gids().real == 10001
    written = {path.name for path in container.data.iterdir()}
    assert "gateway.db" in written
    for place in ("/etc/gateway", "/opt/gateway", "/"):
        assert _writes(first, place) is False, place
    assert _writes(first, "/tmp") is True

    first.terminate()
    assert container.process.wait(timeout=scaled(40)) == 0
    assert "stopped" in container.errors()
    assert "Traceback" not in container.errors()


def _writes(first: psutil.Process, place: str) -> bool:
    """Whether the gateway's user can make a file there, in the container that runs."""
    enter = ["nsenter", "--target", str(first.pid), "--mount", "--root", "--setuid", "10001"]
    return subprocess.run([*enter, "touch", f"{place}/tried"], capture_output=True).returncode == 0


def test_container_that_is_stopped_as_it_starts_ends_in_order(container: ImageProcess) -> None:
    """Long before it serves: the gateway's process has just been made."""
    first = container.begin()
    first.terminate()
    assert container.process.wait(timeout=scaled(40)) == 0
    assert "Traceback" not in container.errors()


def test_image_adds_little_to_its_base(image: Image) -> None:
    files = [image.root / path for path in image.added]
    assert sum(file.lstat().st_size for file in files) < ADDED_BYTES
    # What is not of the gateway is its user and the places where things are mounted.
    others = {path for path in image.added if not path.startswith("opt/gateway/")}
    assert {path for path in others if not path.startswith("etc/")} == set()


def test_image_has_no_compiler_and_no_pip(image: Image) -> None:
    programs = {
        file.name
        for directory in image.config["Env"][0].partition("=")[2].split(":")
        for file in (image.root / directory.lstrip("/")).glob("*")
    }
    assert "gateway" in programs
    assert {name for name in programs if COMPILERS.match(name) or name.startswith("pip")} == set()
    for python in ("/opt/gateway/bin/python", "/usr/bin/python3"):
        assert "No module named pip" in image.run(python, "-m", "pip", "--version").stderr


def test_nothing_of_the_image_belongs_to_the_user_that_runs_it(image: Image) -> None:
    owned = {path for path in image.root.rglob("*") if path.lstat().st_uid == 10001}
    assert {str(path.relative_to(image.root)) for path in owned} == {
        "etc/gateway", "var/lib/gateway",
    }  # fmt: skip


def test_gateway_of_the_image_is_compiled(image: Image) -> None:
    done = image.run(
        "python", "-c", "import gateway.proxy.pipeline as p, gateway.codec.native as n;"
        "print(p.__file__, n.__file__)",
    )  # fmt: skip
    assert done.stdout.count(".so") == 2, done.stdout + done.stderr
    assert __version__ in image.run("gateway", "--version").stdout


def test_bill_of_materials_is_what_the_image_has_inside(image: Image, tmp_path: Path) -> None:
    listed = image.run("python", "-c", LIST_PACKAGES)
    inside = dict(json.loads(listed.stdout))
    (packages,) = (image.root / "opt/gateway/lib").glob("python3.*/site-packages")
    # The tool asks a Python where its packages are.
    python = tmp_path / "image" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} -S -s "$@"\n')
    python.chmod(0o755)
    file = tmp_path / "sbom.json"
    subprocess.run([sys.executable, ROOT / ".ci" / "sbom.py", tmp_path / "image", file], check=True)
    document = json.loads(file.read_text())
    named = {one["name"].lower().replace("_", "-"): one for one in document["components"]}
    root = document["metadata"]["component"]
    assert {name: one["version"] for name, one in named.items()} | {
        root["name"]: root["version"]
    } == inside
    assert len(inside) > 20


LIST_PACKAGES = """
import importlib.metadata as m, json, re
name = lambda one: re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
print(json.dumps([(name(one), one.version) for one in m.distributions()]))
"""
