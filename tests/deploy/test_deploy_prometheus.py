"""A real Prometheus scrapes a live gateway under load, and answers what we ask of it: the
dashboard's queries, the rules, and sums that the traffic is known to make."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import httpx
import pytest
from support.clients.traffic import Traffic
from support.deadlines import wait_until
from support.deploy_tools import DEPLOY, ROOT, run_tool, tool
from support.jose_values import Certificate, make_certificate
from support.processes.gateway import GatewayProcess
from support.processes.prometheus import PrometheusServer
from support.servers.raw_upstream import OK, Received, thread_upstream
from support.tiers import slow

from examples.ports import free_port
from gateway.config import Config

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "gateway.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['title']} ({target['refId']})": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
TRACES = "tracing" in Config.model_fields
ROUTES = {"public", "api", "write", "dead", "limited"}
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"


@dataclass
class Monitored:
    """A gateway that Prometheus scrapes, and its traffic."""

    gateway: GatewayProcess
    prometheus: PrometheusServer
    traffic: Traffic


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """A gateway of two workers under load."""
    tool("prometheus")
    directory = tmp_path_factory.mktemp("monitored")

    def respond(received: Received) -> bytes:
        return BROKEN if b"broken" in received.request_line else OK

    with ExitStack() as stack:
        upstream = stack.enter_context(thread_upstream())
        upstream.respond = respond
        certificate = make_certificate(directory, "gateway")
        gateway = GatewayProcess(directory, upstream.url, **_sections(upstream.url, certificate))
        # Before the first census, so that it is known to be near its end from the start.
        subprocess.run(
            [
                sys.executable, "-m", "gateway", "client", "create", "--id", "shop",
                "--secret-file", "/dev/stdin", "-c", gateway.config,
            ],
            input="shop-secret", text=True, check=True, capture_output=True,
        )  # fmt: skip
        stack.callback(gateway.stop)
        gateway.start()
        prometheus = PrometheusServer(directory, f"127.0.0.1:{gateway.admin_port}")
        stack.callback(prometheus.stop)
        prometheus.start()
        traffic = Traffic(gateway)
        stack.callback(traffic.stop)
        traffic.start()
        yield Monitored(gateway, prometheus, traffic)


def _sections(upstream_url: str, certificate: Certificate) -> dict[str, Any]:
    def route(name: str, path: str, upstream: str = "main", **more: object) -> dict[str, Any]:
        return {"name": name, "match": {"path": path}, "upstream": upstream, **more}

    return {
        "workers": 2,
        "provider": {"client_ttl": "1d"},
        "upstreams": {
            "main": {"targets": [upstream_url]},
            "dead": {
                "targets": [f"https://127.0.0.1:{free_port()}"],
                "tls": {"cert": str(certificate.cert), "key": str(certificate.key)},
            },
        },
        "routes": [
            route("public", "/public", auth="none"),
            route("api", "/api"),
            route("write", "/api/write", scopes=["orders:write"]),
            route("dead", "/dead", "dead"),
            route("limited", "/limited", rate_limit={"requests": 1, "per": "1h", "by": "route"}),
        ],
        "shutdown": {"delay": 0},
        # Nobody takes the spans, which is no matter; their ids become exemplars.
        **({"tracing": {"otlp_endpoint": f"http://127.0.0.1:{free_port()}"}} if TRACES else {}),
    }


@slow("Prometheus")
def test_each_query_of_the_dashboard_returns_data(monitored: Monitored) -> None:
    for name, expression in QUERIES.items():
        samples = monitored.prometheus.until(_filled(expression))
        for sample in samples:
            legend = _legend(expression)
            assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= sample.labels.keys(), name
    for annotation in DASHBOARD["annotations"]["list"]:
        # There is nothing to annotate until something is loaded: it must only be understood.
        monitored.prometheus.query(_filled(annotation["expr"]))


@slow("Prometheus")
def test_variables_of_the_dashboard_find_the_gateway(monitored: Monitored) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found
        values = monitored.prometheus.get(
            f"label/{found[2]}/values", **{"match[]": _filled(found[1])}
        )
        expected = {"job": "gateway", "instance": f"127.0.0.1:{monitored.gateway.admin_port}"}
        assert values == [expected[variable["name"]]]


@slow("Prometheus")
def test_rules_are_evaluated_and_record(monitored: Monitored) -> None:
    names = re.findall(r"record: (\S+)", (DEPLOY / "prometheus" / "rules.yaml").read_text())
    for name in names:
        monitored.prometheus.until(name)
    groups = monitored.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")} == set()
    assert {rule["health"] for rule in rules} == {"ok"}


@slow("Prometheus")
@pytest.mark.parametrize(
    "alert",
    [
        "GatewayTargetDown", "GatewayClientsExpiring", "GatewayErrorBudgetBurnsFast",
        "GatewaySecretsGuessed", "GatewayCertificateExpiring",
    ],
)  # fmt: skip
def test_trouble_raises_its_alert(monitored: Monitored, alert: str) -> None:
    # Pending: it would fire after the time that the rule waits.
    monitored.prometheus.until(f'ALERTS{{alertname="{alert}"}}')


@slow("Prometheus")
@pytest.mark.parametrize("alert", ["GatewayDown", "GatewayStoreDown", "GatewayWorkersRestart"])
def test_no_alert_is_raised_without_its_trouble(monitored: Monitored, alert: str) -> None:
    monitored.prometheus.until('ALERTS{alertname="GatewayTargetDown"}')
    assert monitored.prometheus.query(f'ALERTS{{alertname="{alert}"}}') == []


@slow("Prometheus")
def test_page_under_load_is_to_the_liking_of_promtool(monitored: Monitored) -> None:
    page = httpx.get(f"{monitored.gateway.admin_url}/metrics").text
    run_tool("promtool", "check", "metrics", stdin=page)


@slow("Prometheus")
@pytest.mark.skipif(not TRACES, reason="this version has no tracing")
def test_buckets_lead_to_traces(monitored: Monitored) -> None:
    bucket = "gateway_request_duration_seconds_bucket"
    monitored.prometheus.until(bucket)
    now = time.time()
    found = wait_until(
        lambda: monitored.prometheus.get(
            "query_exemplars", query=bucket, start=str(now - 600), end=str(now + 600)
        )
    )
    assert {one["seriesLabels"]["route"] for one in found} <= {"_provider", "_none", *ROUTES}
    for one in found:
        for exemplar in one["exemplars"]:
            assert re.fullmatch("[0-9a-f]{32}", exemplar["labels"]["trace_id"])
            assert exemplar["labels"].keys() == {"trace_id"}
            assert 0 < float(exemplar["value"]) < 60


# The last one that needs the traffic: it ends it.
@slow("Prometheus")
def test_prometheus_counts_what_was_asked(monitored: Monitored) -> None:
    responded = monitored.traffic.stop()
    prometheus = monitored.prometheus
    total = sum(responded.values())
    assert total > 100

    def counted(selector: str) -> float:
        return prometheus.value(f"sum(gateway_requests_total{{{selector}}}) or vector(0)")

    # As soon as the last of it is scraped.
    prometheus.until(
        "sum(gateway_requests_total)", lambda samples: bool(samples) and samples[0].value >= total
    )
    assert counted("") == total
    for (what, status), count in responded.items():
        if what not in {"token", "revoke"}:
            route = "_none" if what == "none" else what
            assert counted(f'route="{route}",code="{status}"') == count, (what, status)
    provider = sum(count for (what, _), count in responded.items() if what in {"token", "revoke"})
    assert counted('route="_provider"') == provider
    issued = responded["token", 200]
    assert prometheus.value("sum(gateway_tokens_issued_total)") == issued

    # Who made the response.
    assert counted('source="upstream",code="500"') == responded["public", 500]
    assert counted('source="gateway",code=~"5.."') == responded["dead", 502]
    assert counted('source="gateway",code="429",route="limited"') == responded["limited", 429]

    # The decisions, and the time that the gateway took and the upstream took.
    decisions = 'sum(gateway_auth_decisions_total{{result="{}"}})'
    assert prometheus.value(decisions.format("missing")) == responded["api", 401] / 2
    assert prometheus.value(decisions.format("unknown")) == responded["api", 401] / 2
    assert prometheus.value(decisions.format("scope")) == responded["write", 403]
    means = [
        prometheus.value(f"sum({name}_sum) / sum({name}_count)")
        for name in ("gateway_upstream_duration_seconds", "gateway_request_duration_seconds")
    ]
    assert all(0 < mean < 10 for mean in means)
    forwarded = responded["api", 200] + responded["public", 200] + responded["public", 500]
    forwarded += responded["limited", 200]
    assert (
        prometheus.value('sum(gateway_upstream_duration_seconds_count{upstream="main"})')
        == forwarded
    )

    assert prometheus.value("sum(gateway_inflight_requests)") == 0


def test_panels_of_the_dashboard_are_complete() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == [
        "datasource", "job", "instance",
    ]  # fmt: skip
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["title"]
        assert panel["datasource"] == source
        assert panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert 'job=~"$job",instance=~"$instance"' in target["expr"]
            # A window that is shorter than two scrapes has no rate.
            assert set(re.findall(r"\[(.*?)\]", target["expr"])) <= {"$__rate_interval"}
            if len(panel["targets"]) > 1:
                assert target["legendFormat"]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in DASHBOARD["panels"]]
    for title, place in places:
        assert place["x"] + place["w"] <= 24, title
    for (title, one), (other_title, other) in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
        assert apart, f"{title} and {other_title}"
    for (_, one), (_, other) in pairwise(places):
        assert (one["y"], one["x"]) < (other["y"], other["x"])


def test_dashboard_shows_what_the_issue_of_a_gateway_are() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Overview", "Traffic", "Errors", "Latency", "Auth", "Token cache", "Store", "Upstreams",
        "Clients", "Processes",
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["dashboard", "rules"])
def test_each_metric_in_use_is_documented(source: str) -> None:
    texts = {
        "dashboard": "\n".join(QUERIES.values()),
        "rules": (DEPLOY / "prometheus" / "rules.yaml").read_text(),
    }
    used = set(re.findall(r"(?<![:\w])gateway_[a-z0-9_]+", texts[source]))
    documented = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for name in used:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert f"`{base}`" in documented, name


@slow("Prometheus")
def test_provisioning_finds_the_dashboard_and_the_data() -> None:
    compose = (ROOT / "compose.yaml").read_text()
    folder = DEPLOY / "grafana" / "provisioning"
    provider = (folder / "dashboards" / "gateway.yaml").read_text()
    path = re.search(r"path: (\S+?)\}?$", provider, re.MULTILINE)
    assert path
    assert f"./deploy/grafana/gateway.json:{path[1]}/gateway.json:ro" in compose
    source = (folder / "datasources" / "prometheus.yaml").read_text()
    assert "url: http://prometheus:9090" in source
    assert re.search(r"^  prometheus:$", compose, re.MULTILINE)


def _filled(expression: str) -> str:
    """A query with its variables filled in, as Grafana does."""
    return (
        expression.replace("$job", "gateway")
        .replace("$instance", ".*")
        .replace("$__rate_interval", "10s")
    )


def _legend(expression: str) -> str:
    for panel in PANELS:
        for target in panel["targets"]:
            if target["expr"] == expression:
                return str(target["legendFormat"])
    raise AssertionError(expression)
