"""Recording and alert rules, by Prometheus' own tools."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from support.deploy_tools import DEPLOY, ROOT, kustomize, objects, run_tool, the
from support.operator_objects import check_operator_object
from support.tiers import slow

RULES = DEPLOY / "prometheus" / "rules.yaml"
TESTS = DEPLOY / "prometheus" / "rules.test.yaml"
GROUPS: dict[str, Any] = yaml.safe_load(RULES.read_text())
ALERTS = [rule for group in GROUPS["groups"] for rule in group["rules"] if "alert" in rule]


def test_rules_pass_the_check() -> None:
    run_tool("promtool", "check", "rules", RULES)


@slow("Prometheus")
def test_rules_do_what_their_unit_tests_say() -> None:
    run_tool("promtool", "test", "rules", TESTS)


def test_each_rule_has_a_unit_test() -> None:
    text = TESTS.read_text()
    for alert in ALERTS:
        # One where it fires, not only where it does not.
        fires = rf"alertname: {alert['alert']}\n +exp_alerts:\n"
        assert re.search(fires, text), alert["alert"]


def test_each_alert_has_a_severity_and_is_explained() -> None:
    headings = re.findall(
        r"^### (\w+)$", (ROOT / "docs" / "guides" / "monitoring.md").read_text(), re.M
    )
    assert headings == [alert["alert"] for alert in ALERTS]
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "description"}


def test_operator_and_chart_have_the_same_rules() -> None:
    (rule,) = objects((DEPLOY / "prometheus" / "prometheusrule.yaml").read_text())
    assert rule["spec"] == GROUPS, "run `make rules`"
    chart = DEPLOY / "helm" / "bearer-gateway" / "files" / "rules.yaml"
    assert chart.read_text() == RULES.read_text(), "run `make rules`"


def test_objects_for_the_operator_are_valid_and_find_the_pods() -> None:
    found = kustomize("prometheus")
    found += objects((DEPLOY / "prometheus" / "servicemonitor.yaml").read_text())
    for one in found:
        check_operator_object(one)
    edge = kustomize("k8s/overlays/edge")
    pod = the(edge, "Deployment")["spec"]["template"]
    monitor = the(found, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {
        port["name"] for one in pod["spec"]["containers"] for port in one["ports"]
    }
    service = the(edge, "Service", "gateway-admin")
    labels = the(found, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert labels.items() <= service["metadata"]["labels"].items()
    # The other Service has no metrics.
    public = the(edge, "Service", "gateway")
    assert not labels.items() <= public["metadata"]["labels"].items()


@pytest.mark.parametrize("name", ["PodMonitor", "ServiceMonitor"])
def test_wrong_objects_for_the_operator_are_noticed(name: str) -> None:
    (one,) = objects((DEPLOY / "prometheus" / f"{name.lower()}.yaml").read_text())
    one["spec"]["selektor"] = {}
    with pytest.raises(AssertionError):
        check_operator_object(one)
