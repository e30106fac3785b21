"""Pods without secrets: what the gateway and its callers get from the cluster."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from support.cluster_secrets import config_maps
from support.deploy_tools import DEPLOY, Object, container, objects, pod_of, run_tool, the

from gateway.config import Config

APPLICATION = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "orders"},
    "spec": {
        "selector": {"matchLabels": {"app": "orders"}},
        "template": {
            "metadata": {"labels": {"app": "orders"}},
            "spec": {
                "serviceAccountName": "orders",
                "containers": [
                    {"name": "app", "image": "orders",
                     "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
                ],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        },
    },
}  # fmt: skip


def _sources(pod: Object, volume: str) -> list[Object]:
    found: list[Object] = next(
        one["projected"]["sources"] for one in pod["volumes"] if one["name"] == volume
    )
    return found


def test_gateway_gets_a_token_for_the_api_server_and_its_ca(cluster_keys: list[Object]) -> None:
    pod = pod_of(the(cluster_keys, "Deployment"))
    # No token of the default kind, which never expires for the audience of the API server.
    assert pod["automountServiceAccountToken"] is False
    token, authorities = _sources(pod, "cluster")
    assert "audience" not in token["serviceAccountToken"]
    assert authorities["configMap"]["name"] == "kube-root-ca.crt"
    mounts = {one["name"]: one for one in container(pod, "gateway")["volumeMounts"]}
    assert mounts["cluster"]["mountPath"] == "/run/secrets/cluster"
    assert mounts["cluster"]["readOnly"] is True


def test_component_gives_callers_a_token_for_the_gateway(tmp_path: Path) -> None:
    (tmp_path / "orders.yaml").write_text(yaml.safe_dump(APPLICATION))
    component = os.path.relpath(DEPLOY / "k8s" / "components" / "gateway-token", tmp_path)
    kustomization = {"resources": ["orders.yaml"], "components": [component]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    pod = pod_of(the(objects(run_tool("kubectl", "kustomize", tmp_path)), "Deployment"))
    (source,) = _sources(pod, "gateway-token")
    token = source["serviceAccountToken"]
    (path,) = [
        one["mountPath"]
        for one in container(pod, "app")["volumeMounts"]
        if one["name"] == "gateway-token"
    ]
    assert f"{path}/{token['path']}" == "/run/secrets/gateway-token/token"
    text = (DEPLOY / "k8s" / "overlays" / "workloads" / "gateway.yaml").read_text()
    config = Config.model_validate(
        {name: yaml.safe_load(text)[name] for name in ("jwt_issuers", "workloads")}
    )
    assert token["audience"] in config.jwt_issuers[0].audience
    assert config.workloads[0].issuer == config.jwt_issuers[0].name


def test_configuration_of_the_overlay_names_what_is_mounted(cluster_keys: list[Object]) -> None:
    maps = config_maps(cluster_keys)
    text = next((one["gateway.yaml"] for one in maps.values() if "gateway.yaml" in one), "")
    mounted = {f"/run/secrets/cluster/{name}" for name in ("token", "ca.crt")}
    named = {word.strip() for word in text.replace('"', " ").split() if "/cluster/" in word}
    assert named <= mounted | {"system:serviceaccount:shop:orders"}
