"""What holds for every object that `deploy/` puts into a cluster, by overlay or by chart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from support.cluster_secrets import config_maps, documented_secrets, made_by_chart
from support.deploy_tools import ROOT, Object, container, containers_of, pod_of, the
from support.kubelet import Mounts
from support.operator_objects import check_operator_object
from support.tiers import slow

from gateway import __version__
from gateway.cli import main
from gateway.config import Config, load_config

OLDEST = "1.29"
"""Native sidecars are on by default since then."""
NEWEST = ("1.35", "1.36", "1.37")
"""Of those that have schemas on PyPI."""


@pytest.mark.parametrize(
    "version",
    [pytest.param(version, marks=slow("Kubernetes")) for version in (OLDEST, *NEWEST[:-1])]
    + [NEWEST[-1]],
)
def test_objects_are_valid_in_kubernetes(everything: list[Object], version: str) -> None:
    for one in everything:
        if one["apiVersion"].startswith("monitoring.coreos.com/"):
            check_operator_object(one)
        else:
            kubernetes_validate.validate(one, version, strict=True)


def test_pods_hold_no_privilege(everything: list[Object]) -> None:
    for pod in _pods(everything):
        assert pod["automountServiceAccountToken"] is False
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["runAsGroup"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for one in containers_of(pod):
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert one["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in one["resources"]["limits"]


def test_each_image_has_a_version(everything: list[Object]) -> None:
    for pod in _pods(everything):
        for one in containers_of(pod):
            name, _, tag = one["image"].rpartition(":")
            assert name
            if name.endswith("bearer-gateway"):
                assert tag == __version__
            else:
                assert tag not in {"", "latest"}


def test_embedded_configuration_passes_the_check(
    everything: list[Object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mounts = _mounts(everything, tmp_path)
    file = mounts.path("/etc/gateway/gateway.yaml")
    assert main(["check", "-c", str(file)]) == 0, capsys.readouterr().err


def test_probes_and_ports_are_those_of_the_configuration(
    everything: list[Object], tmp_path: Path
) -> None:
    config = _config(everything, tmp_path)
    gateway = container(_gateway_pod(everything), "gateway")
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    listener = "https" if config.listen.tls else "http"
    expected = {listener: config.listen.port, "admin": config.admin.port}
    if config.listen.http_redirect:
        expected["redirect"] = config.listen.http_redirect.port
    assert ports == expected
    # The kubelet comes to the pod's address.
    assert config.admin.host == config.listen.host == "0.0.0.0"
    for probe, path in {
        "startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz",
    }.items():  # fmt: skip
        assert gateway[probe]["httpGet"] == {"path": path, "port": "admin"}
    services = [one for one in everything if one["kind"] == "Service"]
    for service in services:
        labels = _labels(everything, service["spec"]["selector"])
        if labels["app.kubernetes.io/name"] == "bearer-gateway":
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()


def test_a_stop_fits_into_the_grace_period(everything: list[Object], tmp_path: Path) -> None:
    shutdown = _config(everything, tmp_path).shutdown
    period = _gateway_pod(everything)["terminationGracePeriodSeconds"]
    assert shutdown.delay + shutdown.grace < period


def test_writable_paths_are_volumes(everything: list[Object], tmp_path: Path) -> None:
    config = _config(everything, tmp_path)
    pod = _gateway_pod(everything)
    kinds = {next(iter(volume.keys() - {"name"})): volume for volume in pod["volumes"]}
    if config.store.startswith("sqlite:"):
        assert str(tmp_path / "var/lib/gateway") in config.store
        assert "persistentVolumeClaim" in kinds
    # Made by the gateway if it is not given, and a new pod would not know it.
    assert config.provider.seal_key or config.store == "none"


def test_selectors_select_the_pods_and_nothing_else(everything: list[Object]) -> None:
    for one in everything:
        selectors: list[dict[str, Any]] = []
        if one["kind"] == "Service":
            selectors.append(one["spec"]["selector"])
        elif one["kind"] == "NetworkPolicy":
            selectors.append(one["spec"]["podSelector"].get("matchLabels", {}))
        elif one["kind"] in {"PodDisruptionBudget", "PodMonitor"}:
            selectors.append(one["spec"]["selector"]["matchLabels"])
        elif one["kind"] in {"Deployment", "StatefulSet"}:
            selectors.append(one["spec"]["selector"]["matchLabels"])
            for spread in pod_of(one).get("topologySpreadConstraints", []):
                selectors.append(spread["labelSelector"]["matchLabels"])
        for selector in selectors:
            assert selector, f"{one['kind']} {one['metadata']['name']} selects every pod"
            assert _labels(everything, selector)


def test_admin_listener_is_open_to_monitoring_only(everything: list[Object]) -> None:
    policies = [one["spec"] for one in everything if one["kind"] == "NetworkPolicy"]
    policies = [one for one in policies if "Ingress" in one["policyTypes"]]
    rules = [
        rule
        for policy in policies
        for rule in policy["ingress"]
        if {"port": "admin"} in rule.get("ports", [{"port": "admin"}])
    ]
    assert rules == [
        {
            "from": [
                {
                    "namespaceSelector": {
                        "matchLabels": {"kubernetes.io/metadata.name": "monitoring"}
                    }
                }
            ],
            "ports": [{"port": "admin"}],
        }
    ]


def test_requests_of_resources_cover_what_was_measured(everything: list[Object]) -> None:
    measured = json.loads((ROOT / "bench" / "results" / "full.json").read_text())["measurements"]
    resources = container(_gateway_pod(everything), "gateway")["resources"]
    started, connected, loaded = (
        max(measured[name]["values"]) for name in ("start_mib", "idle_mib", "cache_mib")
    )
    assert _mib(resources["requests"]["memory"]) >= max(started, connected)
    # All connections and all tokens at once.
    assert _mib(resources["limits"]["memory"]) >= loaded + connected - started


def test_config_maps_keep_their_names(everything: list[Object]) -> None:
    names = {one["metadata"]["name"] for one in everything if one["kind"] == "ConfigMap"}
    own = {"gateway-config", "gateway-redis-config", "gateway-bearer-gateway"}
    assert names <= own | {"demo-upstream"}


def _mib(quantity: str) -> float:
    assert quantity.endswith("Mi")
    return float(quantity[:-2])


def _pods(found: list[Object]) -> list[Object]:
    pods = [pod_of(one) for one in found if one["kind"] in {"Deployment", "StatefulSet"}]
    assert pods
    return pods


def _gateway_pod(found: list[Object]) -> Object:
    return pod_of(the(found, "Deployment"))


def _labels(found: list[Object], selector: dict[str, str]) -> dict[str, str]:
    for one in found:
        if one["kind"] in {"Deployment", "StatefulSet"}:
            labels: dict[str, str] = one["spec"]["template"]["metadata"]["labels"]
            if selector.items() <= labels.items():
                return labels
    raise AssertionError(f"{selector} selects no pod")


def _mounts(found: list[Object], root: Path) -> Mounts:
    pod = _gateway_pod(found)
    secrets = documented_secrets() | made_by_chart(found)
    return Mounts(
        root, pod, container(pod, "gateway"), config_maps=config_maps(found), secrets=secrets
    )


def _config(found: list[Object], root: Path) -> Config:
    return load_config(_mounts(found, root).path("/etc/gateway/gateway.yaml"))
