"""All that would be applied to a cluster, rendered once."""

from __future__ import annotations

from functools import cache

import pytest
from support.deploy_tools import DEPLOY, Object, helm_template, kustomize

SOURCES = (
    "sidecar", "verifier", "edge", "redis", "postgresql", "workloads",
    "helm", "helm-edge", "helm-acme", "helm-postgresql", "helm-workloads",
)  # fmt: skip
CHART = DEPLOY / "helm" / "bearer-gateway"
EDGE = ("-f", str(CHART / "values-edge.yaml"))


@cache
def _rendered(source: str) -> list[Object]:
    if source == "helm":
        return helm_template()
    if source == "helm-edge":
        return helm_template(*EDGE)
    if source == "helm-acme":
        return helm_template(*EDGE, "-f", str(CHART / "values-acme.yaml"))
    if source == "helm-postgresql":
        return helm_template(*EDGE, "-f", str(CHART / "values-postgresql.yaml"))
    if source == "helm-workloads":
        return helm_template("--set", "clusterKeys.enabled=true")
    return kustomize(f"k8s/overlays/{source}")


@pytest.fixture(params=SOURCES)
def everything(request: pytest.FixtureRequest) -> list[Object]:
    """The objects of each overlay and of the chart, one after the other."""
    return _rendered(request.param)


@pytest.fixture(params=("edge", "helm-edge"))
def edge(request: pytest.FixtureRequest) -> list[Object]:
    """The objects of a fleet, by overlay and by chart."""
    return _rendered(request.param)


@pytest.fixture(params=("postgresql", "helm-postgresql"))
def on_postgresql(request: pytest.FixtureRequest) -> list[Object]:
    """The objects of a fleet on a PostgreSQL, by overlay and by chart."""
    return _rendered(request.param)


@pytest.fixture
def sidecar() -> list[Object]:
    """The objects of the overlay `sidecar`."""
    return _rendered("sidecar")


@pytest.fixture(params=("workloads", "helm-workloads"))
def cluster_keys(request: pytest.FixtureRequest) -> list[Object]:
    """The objects of a gateway that fetches the keys of its cluster."""
    return _rendered(request.param)


@pytest.fixture
def redis() -> list[Object]:
    """The objects of the overlay `redis`."""
    return _rendered("redis")
