"""All that would be applied to a cluster, rendered once."""

from __future__ import annotations

from functools import cache

import pytest
from support.deploy_tools import DEPLOY, Object, helm_template, kustomize

SOURCES = ("sidecar", "verifier", "edge", "redis", "helm", "helm-edge")


@cache
def _rendered(source: str) -> list[Object]:
    if source == "helm":
        return helm_template()
    if source == "helm-edge":
        return helm_template("-f", str(DEPLOY / "helm" / "bearer-gateway" / "values-edge.yaml"))
    return kustomize(f"k8s/overlays/{source}")


@pytest.fixture(params=SOURCES)
def everything(request: pytest.FixtureRequest) -> list[Object]:
    """The objects of each overlay and of the chart, one after the other."""
    return _rendered(request.param)


@pytest.fixture(params=("edge", "helm-edge"))
def edge(request: pytest.FixtureRequest) -> list[Object]:
    """The objects of a fleet, by overlay and by chart."""
    return _rendered(request.param)


@pytest.fixture
def sidecar() -> list[Object]:
    """The objects of the overlay `sidecar`."""
    return _rendered("sidecar")


@pytest.fixture
def redis() -> list[Object]:
    """The objects of the overlay `redis`."""
    return _rendered("redis")
