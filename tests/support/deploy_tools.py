"""Programs that the tests of `deploy/` run, and the objects that they print."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FETCHED = ROOT / "build" / "tools"

Object = dict[str, Any]
"""A Kubernetes object."""


def tool(name: str) -> str:
    """Path of a program: on the PATH, or fetched by `make tools`. Else the test is skipped."""
    own = Path(sys.executable).parent
    found = shutil.which(name, path=os.pathsep.join([str(own), str(FETCHED), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"there is no {name}: `make tools` fetches it")
    return found


def run_tool(name: str, *arguments: str | Path, stdin: str | None = None) -> str:
    """What the program prints; it must succeed."""
    done = run(name, *arguments, stdin=stdin)
    assert done.returncode == 0, f"{name} {arguments}\n{done.stdout}{done.stderr}"
    return done.stdout


def run(
    name: str, *arguments: str | Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The program's end, whatever it was."""
    return subprocess.run(
        [tool(name), *map(str, arguments)], input=stdin, capture_output=True, text=True
    )


def kustomize(directory: str) -> list[Object]:
    """What `kubectl apply -k` would apply."""
    return objects(run_tool("kubectl", "kustomize", DEPLOY / directory))


def helm_template(*arguments: str) -> list[Object]:
    """What `helm install` would apply."""
    chart = str(DEPLOY / "helm" / "bearer-gateway")
    return objects(run_tool("helm", "template", "gateway", chart, *arguments))


def objects(text: str) -> list[Object]:
    """The objects of a stream of YAML documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def the(found: list[Object], kind: str, name: str | None = None) -> Object:
    """The only object of that kind, and name if one is given."""
    matching = [
        one
        for one in found
        if one["kind"] == kind and (name is None or one["metadata"]["name"] == name)
    ]
    assert len(matching) == 1, f"{len(matching)} of {kind} {name}"
    return matching[0]


def pod_of(workload: Object) -> Object:
    """The pod of a Deployment or StatefulSet."""
    pod: Object = workload["spec"]["template"]["spec"]
    return pod


def containers_of(pod: Object) -> list[Object]:
    """All containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def container(pod: Object, name: str) -> Object:
    """A container by its name."""
    return next(one for one in containers_of(pod) if one["name"] == name)
