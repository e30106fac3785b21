"""The tutorial of the sidecar: its files, as it writes them, make a pod that works as it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.deploy_tools import ROOT, container, pod_of, the, tool

from gateway.config import load_config

PAGE = (ROOT / "docs" / "tutorials" / "kubernetes-sidecar.md").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the lines of the tutorial write and render."""
    kubectl = tool("kubectl")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").symlink_to(kubectl)
    for name in ("deploy", "examples"):
        # Copies: kustomize follows no link out of its folder.
        subprocess.run(["cp", "-r", ROOT / name, tmp_path / name], check=True)
    (lines,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    subprocess.run(["bash", "-ec", lines], cwd=tmp_path, env=environment, check=True)
    return tmp_path / "my-sidecar"


def test_files_of_the_tutorial_make_a_native_sidecar_with_its_configuration(
    folder: Path, tmp_path: Path
) -> None:
    objects = list(yaml.safe_load_all((folder / "rendered.yaml").read_text()))
    pod = pod_of(the(objects, "Deployment"))
    (gateway,) = pod["initContainers"]
    assert gateway["restartPolicy"] == "Always"
    assert gateway["image"] == "bearer-gateway:0.2.0"
    (mounted,) = (
        one["data"]["gateway.yaml"]
        for one in objects
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "gateway-config"
    )
    assert mounted == (folder / "gateway.yaml").read_text()
    for name in ("admin-token", "seal-key", "registration-token"):
        (tmp_path / name).write_text("x" * 32)
    path = tmp_path / "gateway.yaml"
    path.write_text(mounted.replace("/run/secrets/gateway", str(tmp_path)))
    config = load_config(path)
    probe = container(pod, "app")["readinessProbe"]["httpGet"]
    assert probe["port"] == config.listen.port
    assert [route.name for route in config.routes if route.match.path == probe["path"]] == [
        "health"
    ]
    assert "127.0.0.1:9001" in str(config.upstreams["app"].targets)
