"""The Helm chart: what it takes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.deploy_tools import DEPLOY, helm_template, run, run_tool, the

from gateway import __version__
from gateway.config import parse_config

CHART = DEPLOY / "helm" / "bearer-gateway"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


EDGE = ["-f", str(CHART / "values-edge.yaml")]
ACME = ["-f", str(CHART / "values-acme.yaml")]


@pytest.mark.parametrize(
    "options", [[], EDGE, ACME, [*EDGE, "-f", str(CHART / "values-postgresql.yaml")]]
)
def test_chart_passes_its_linter(options: list[str]) -> None:
    run_tool("helm", "lint", "--strict", "--quiet", CHART, *options)


def test_port_of_plain_http_is_open_where_it_is_configured() -> None:
    objects = helm_template(*ACME)
    pod = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "redirect", "containerPort": 8080} in pod["ports"]
    services = [one for one in objects if one["kind"] == "Service"]
    ports = [port for one in services for port in one["spec"]["ports"]]
    assert {
        "name": "redirect", "port": 80, "targetPort": "redirect", "appProtocol": "http",
    } in ports  # fmt: skip
    policy = the(objects, "NetworkPolicy")["spec"]["ingress"][0]
    assert policy["ports"] == [{"port": "https"}, {"port": "redirect"}]
    assert "redirect" not in str(helm_template())


def test_chart_is_of_the_gateways_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__


def test_schema_knows_every_value_and_no_other() -> None:
    def compare(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        if schema.get("additionalProperties") is not False:
            return
        known = set(schema["properties"]) - {"global"}
        assert known == set(values), path or "the top"
        for key, below in schema["properties"].items():
            if isinstance(values.get(key), dict):
                compare(below, values[key], f"{path}.{key}")

    compare(SCHEMA, VALUES, "")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("image.tga=1", "additional properties 'tga' not allowed"),
        ("replicas=many", "want integer"),
        ("service.type=Loadbalancer", "/service/type"),
        ("config.admin.host=127.0.0.1", "/config/admin/host"),
        ("config.listen.port=80", "/config/listen/port"),
        ("config.routes=null", "missing property 'routes'"),
        ("resources.requests.cpu=lots", "/resources/requests/cpu"),
        ("monitoring.podMonitor.interval=15", "/monitoring/podMonitor/interval"),
        ("replicas=2", "more than one replica needs a redis: or postgresql: store"),
        (
            "persistence.enabled=false,config.listen.tls.acme.domains[0]=a.example.com",
            "certificates by ACME are kept in the store",
        ),
        ("autoscaling.enabled=true", "more than one replica needs a redis: or postgresql: store"),
    ],
)
def test_wrong_values_are_refused(setting: str, complaint: str) -> None:
    done = run("helm", "template", "gateway", CHART, "--set", setting)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_secret_of_the_chart_is_left_out_for_one_of_yours() -> None:
    made = the(helm_template(), "Secret")
    assert made["data"].keys() == {"admin-token", "registration-token", "seal-key"}
    assert len(set(made["data"].values())) == 3
    mine = helm_template("--set", "secret.existingName=mine")
    assert not [one for one in mine if one["kind"] == "Secret"]
    volumes = the(mine, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "secrets", "secret": {"secretName": "mine", "defaultMode": 0o440}} in volumes


def test_clients_as_code_are_mounted_from_a_config_map_and_a_secret() -> None:
    options = ("clients.configMapName=gateway-clients", "clients.secretName=client-secrets")
    made = helm_template(*(part for option in options for part in ("--set", option)))
    pod = the(made, "Deployment")["spec"]["template"]["spec"]
    mounts = {one["name"]: one for one in pod["containers"][0]["volumeMounts"]}
    assert mounts["clients"]["mountPath"] == "/etc/gateway-clients"
    assert mounts["client-secrets"]["mountPath"] == "/run/secrets/gateway-clients"
    assert not any("subPath" in mount for mount in mounts.values()), "it would follow no change"
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["clients"]["configMap"] == {"name": "gateway-clients"}
    assert volumes["client-secrets"]["secret"]["secretName"] == "client-secrets"


def test_gateway_without_a_store_has_no_volume_for_data(tmp_path: Path) -> None:
    guide = (DEPLOY.parent / "docs" / "guides" / "verify-without-a-store.md").read_text()
    values = tmp_path / "values.yaml"
    for name in ("admin-token", "seal-key"):
        (tmp_path / name).write_text("0123456789" * 4)
    values.write_text(guide.partition("<!-- helm values -->\n```yaml\n")[2].partition("```")[0])
    made = helm_template("-f", str(values))
    assert not [one for one in made if one["kind"] == "PersistentVolumeClaim"]
    pod = the(made, "Deployment")["spec"]["template"]["spec"]
    assert "data" not in {one["name"] for one in pod["volumes"]}
    assert the(made, "Deployment")["spec"]["replicas"] == 3
    text = the(made, "ConfigMap")["data"]["gateway.yaml"]
    config = parse_config(text.replace("/run/secrets/gateway", str(tmp_path)), file="gateway.yaml")
    assert config.store == "none"
