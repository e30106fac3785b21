"""The image and the composition. There is no Docker here: the Dockerfile is linted, and its install
steps run in a clean environment, which is then used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import httpx
import pytest
import yaml
from packaging.requirements import Requirement
from support.deploy_tools import DEPLOY, ROOT, run_tool
from support.processes.gateway import GatewayProcess
from support.servers.raw_upstream import RawUpstream, thread_upstream
from support.tiers import slow

from gateway import __version__
from gateway.cli import main

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = ROOT / "compose.yaml"


class Image:
    """What the Dockerfile's build stage makes."""

    def __init__(self, directory: Path) -> None:
        self.venv, self.dist = directory / "gateway", directory / "dist"
        self.python = self.venv / "bin" / "python"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The environment that the steps of the Dockerfile make, uncompiled."""
    directory = tmp_path_factory.mktemp("image")
    probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(directory)]
    if subprocess.run([*probe, "cachetools"], capture_output=True).returncode != 0:
        pytest.skip("no package index can be reached, so nothing can be installed")
    made = Image(directory)
    lines = re.findall(r"^RUN (\./install\.sh .*)$", DOCKERFILE, re.MULTILINE)
    assert lines == [
        "./install.sh dependencies /opt/gateway",
        "./install.sh wheel /dist && ./install.sh gateway /opt/gateway /dist",
    ]
    # What compiling adds is the business of `make compiled`.
    environment = {**os.environ, "GATEWAY_PURE": "1"}
    environment.pop("PYTHONPATH", None)  # or pip may find the checkout, and install nothing
    for line in lines:
        moved = line.replace("/opt/gateway", str(made.venv)).replace("/dist", str(made.dist))
        subprocess.run(
            moved.replace("./install.sh", str(DEPLOY / "docker" / "install.sh")),
            shell=True, cwd=ROOT, env=environment, check=True,
        )  # fmt: skip
    return made


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    """An upstream beside the process."""
    with thread_upstream() as running:
        yield running


def test_dockerfile_passes_its_linter() -> None:
    run_tool("hadolint", "--failure-threshold", "style", ROOT / "Dockerfile")


def test_image_runs_as_any_user() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    assert len(stages) == 3
    user = re.findall(r"^USER (\d+):(\d+)$", stages[-1], re.MULTILINE)
    assert user == [("10001", "10001")]
    assert "COPY --from=build /opt/gateway /opt/gateway" in stages[-1]


def test_everything_that_is_copied_gets_past_dockerignore() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for path in line.split():
            assert (ROOT / path).exists()
            assert f"!{path}" in ignored


@slow("image")
def test_gateway_of_the_image_issues_a_token_and_proxies(
    image: Image, upstream: RawUpstream, tmp_path: Path
) -> None:
    gateway = GatewayProcess(tmp_path, upstream.url)
    gateway.start(command=[str(image.venv / "bin" / "gateway")])
    try:
        gateway.create_client()
        headers = {"Authorization": f"Bearer {gateway.get_token()}"}
        assert httpx.get(f"{gateway.url}/api/x", headers=headers).text == "ok"
        assert _healthcheck(image, gateway) == 0
    finally:
        assert gateway.stop() == 0
    assert _healthcheck(image, gateway) == 1


def _healthcheck(image: Image, gateway: GatewayProcess) -> int:
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found
    command: list[str] = json.loads(found[1])
    assert command[0] == "python"
    environment = {"HEALTH_URL": f"{gateway.admin_url}/healthz"}
    return subprocess.run(
        [image.python, *command[1:]], env=environment, capture_output=True
    ).returncode


@slow("image")
def test_image_has_what_is_locked_and_nothing_else(image: Image) -> None:
    listing = subprocess.run(
        [image.python, "-c", LIST_PACKAGES], capture_output=True, text=True, check=True
    )
    installed = dict(json.loads(listing.stdout))
    assert installed.pop("bearer-gateway") == __version__
    assert installed == locked("requirements.lock")


LIST_PACKAGES = """
import importlib.metadata as m, json, re
name = lambda one: re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
print(json.dumps([(name(one), one.version) for one in m.distributions()]))
"""


def locked(name: str) -> dict[str, str]:
    """Packages and versions that a lock file wants on this platform."""
    pins: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and line[0] not in " #":
            pin = Requirement(line.removesuffix("\\"))
            if pin.marker is None or pin.marker.evaluate():
                pins[pin.name] = str(pin.specifier).removeprefix("==")
    return pins


@slow("image")
def test_wheel_and_sdist_hold_every_file_of_the_package(image: Image) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "gateway"], cwd=ROOT, capture_output=True, text=True
    )
    files = set(tracked.stdout.split()) or {
        str(path.relative_to(ROOT)) for path in (ROOT / "gateway").rglob("*.py")
    }
    (wheel,) = image.dist.glob("*.whl")
    (sdist,) = image.dist.glob("*.tar.gz")
    assert sdist.name == f"bearer_gateway-{__version__}.tar.gz"
    with zipfile.ZipFile(wheel) as archive:
        assert not files - set(archive.namelist())
        packages = {name.partition("/")[0] for name in archive.namelist()}
        assert packages == {"gateway", f"bearer_gateway-{__version__}.dist-info"}
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not (files | {"setup.py", "pyproject.toml", "LICENSE", "README.md"}) - names


@slow("image")
def test_bill_of_materials_names_all_that_is_installed(image: Image, tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"
    subprocess.run([sys.executable, ROOT / ".ci" / "sbom.py", image.venv, file], check=True)
    document: dict[str, Any] = json.loads(file.read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["purl"] == f"pkg:pypi/bearer-gateway@{__version__}"
    components = {one["name"].lower().replace("_", "-"): one for one in document["components"]}
    assert {name: one["version"] for name, one in components.items()} == locked("requirements.lock")
    for one in components.values():
        assert one["purl"].startswith("pkg:pypi/")
        assert one.get("licenses"), one["name"]
    root = document["metadata"]["component"]["bom-ref"]
    needs = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    assert len(needs[root]) > 5


def test_composition_is_valid() -> None:
    parsed = compose_spec.PyOptions(apply_merge=True).from_yaml(COMPOSE.read_text())
    parsed.validate()
    back, said = parsed.to_dict()["services"], _services()
    assert back.keys() == said.keys()
    for name, service in said.items():
        assert service.keys() <= back[name].keys(), name


def test_composition_mounts_what_is_there_and_pins_its_images() -> None:
    for name, service in _services().items():
        image, _, tag = service["image"].rpartition(":")
        assert image
        assert tag == __version__ if image == "bearer-gateway" else re.match(r"v?\d+\.\d+", tag)
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"
        for port in service.get("ports", []):
            # A CA must reach the one that gets certificates by ACME.
            assert port.startswith("127.0.0.1:") or service.get("profiles") == ["acme"]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True


def test_configurations_of_the_composition_pass_their_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in _services()["gateway"]["environment"].items():
        monkeypatch.setenv(name, value)
    file = DEPLOY / "compose" / "gateway" / "gateway.yaml"
    assert main(["check", "-c", str(file)]) == 0, capsys.readouterr().err

    # As Prometheus finds them in its container.
    settings = (DEPLOY / "compose" / "prometheus.yaml").read_text()
    rules = DEPLOY / "prometheus" / "rules.yaml"
    (tmp_path / "prometheus.yml").write_text(
        settings.replace("/etc/prometheus/rules.yaml", str(rules))
    )
    run_tool("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert (
        f"./{rules.relative_to(ROOT)}:/etc/prometheus/rules.yaml:ro"
        in (_services()["prometheus"]["volumes"])
    )


def _services() -> dict[str, dict[str, Any]]:
    """Services, with variables at their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    services: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return services
