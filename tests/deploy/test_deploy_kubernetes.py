"""What each overlay is for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.cluster_secrets import config_maps, documented_secrets
from support.deadlines import wait_until
from support.deploy_tools import DEPLOY, ROOT, Object, container, kustomize, objects, pod_of, the
from support.jose_values import make_certificate
from support.kubelet import Mounts
from support.processes.container import ContainerProcess
from support.processes.postgresql import PASSWORD, PostgresServer
from support.processes.redis import RedisServer
from support.tiers import slow

from gateway.config import Config, load_config


def test_sidecar_is_a_native_one_that_starts_first_and_stops_last(sidecar: list[Object]) -> None:
    pod = pod_of(the(sidecar, "Deployment"))
    (gateway,) = pod["initContainers"]
    assert gateway["name"] == "gateway"
    assert gateway["restartPolicy"] == "Always"
    # The next container waits for this one.
    assert gateway["startupProbe"]
    assert [one["name"] for one in pod["containers"]] == ["app"]


def test_application_beside_the_sidecar_is_reached_through_it_only(
    sidecar: list[Object], tmp_path: Path
) -> None:
    pod = pod_of(the(sidecar, "Deployment"))
    app = container(pod, "app")
    assert "ports" not in app
    # Kubelet and Service come in by the gateway.
    port = app["readinessProbe"]["httpGet"]["port"]
    config = _config_of(sidecar, tmp_path)
    assert port == config.listen.port
    health = next(route for route in config.routes if route.name == "health")
    assert health.auth == "none"
    assert health.match.path == app["readinessProbe"]["httpGet"]["path"]
    assert [
        target.split(":")[1]
        for up in config.upstreams.values()
        for target in up.targets
        if isinstance(target, str)
    ] == ["//127.0.0.1"]
    assert app["command"][0] == "python"


def test_one_sqlite_file_has_one_owner(sidecar: list[Object]) -> None:
    deployment = the(sidecar, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert not [one for one in sidecar if one["kind"] == "HorizontalPodAutoscaler"]


def test_verifier_keeps_nothing_and_has_no_volume_but_its_configuration(tmp_path: Path) -> None:
    verifier = kustomize("k8s/overlays/verifier")
    gateway = container(pod_of(the(verifier, "Deployment")), "gateway")
    assert [one["mountPath"] for one in gateway["volumeMounts"]] == ["/etc/gateway"]
    assert gateway["securityContext"]["readOnlyRootFilesystem"] is True
    assert _config_of(verifier, tmp_path).store == "none"
    assert not [one for one in verifier if one["kind"] in {"PersistentVolumeClaim", "Secret"}]
    assert the(verifier, "Deployment")["spec"]["replicas"] == 2


def test_edge_scales_by_requests_in_flight(edge: list[Object]) -> None:
    deployment = the(edge, "Deployment")
    scaler = the(edge, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    assert scaler["minReplicas"] > 1
    pods = next(one["pods"] for one in scaler["metrics"] if one["type"] == "Pods")
    assert pods["metric"]["name"] == "gateway_inflight_requests"


def test_edge_is_spread_and_keeps_enough_pods(edge: list[Object]) -> None:
    spread = pod_of(the(edge, "Deployment"))["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in spread} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    budget = the(edge, "PodDisruptionBudget")["spec"]
    minimum = the(edge, "HorizontalPodAutoscaler")["spec"]["minReplicas"]
    assert budget["maxUnavailable"] < minimum
    update = the(edge, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert update["maxUnavailable"] == 0


def test_edge_reaches_names_upstreams_and_redis_only(edge: list[Object]) -> None:
    assert_reaches_only(edge, 6379)


def test_edge_on_postgresql_reaches_it_in_place_of_redis(on_postgresql: list[Object]) -> None:
    assert_reaches_only(on_postgresql, 5432)


def assert_reaches_only(found: list[Object], port: int) -> None:
    (policy,) = [
        one["spec"]
        for one in found
        if one["kind"] == "NetworkPolicy" and "Egress" in one["spec"]["policyTypes"]
    ]
    # No rule without `to` or `ports` that would allow everything, such as the metadata server.
    for rule in policy["egress"]:
        assert rule["to"]
        for peer in rule["to"]:
            if "ipBlock" in peer:
                assert peer["ipBlock"]["cidr"] == "10.0.0.0/8"
                assert rule["ports"] == [{"port": port}]


def test_redis_is_reached_by_the_gateway_only(redis: list[Object]) -> None:
    policy = the(redis, "NetworkPolicy", "gateway-redis")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    assert policy["ingress"] == [
        {
            "from": [
                {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "bearer-gateway"}}}
            ],
            "ports": [{"port": "redis"}],
        }
    ]


def test_rule_for_the_metrics_adapter_serves_the_metric_of_the_scaler() -> None:
    (document,) = objects((DEPLOY / "prometheus" / "adapter.yaml").read_text())
    (rule,) = document["rules"]["custom"]
    assert rule["seriesQuery"].startswith("gateway_inflight_requests{")
    assert "pod" in rule["seriesQuery"]


@pytest.fixture
def users_acl() -> str:
    """The file of Redis users that the document shows."""
    text = (ROOT / "docs" / "guides" / "kubernetes.md").read_text()
    block = text.split("```\n")[1]
    assert block.startswith("user default")
    return block.replace("PASSWORD", "secret")


@pytest.fixture
def cluster_redis(redis: list[Object], users_acl: str, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis with the overlay's configuration, its users and its mounts."""
    server = RedisServer(tmp_path)
    pod = pod_of(the(redis, "StatefulSet"))
    mounts = Mounts(
        tmp_path / "redis",
        {**pod, "volumes": [*pod["volumes"], {"name": "data"}]},
        container(pod, "redis"),
        config_maps=config_maps(redis),
        secrets={"gateway-redis": {"users.acl": users_acl}},
    )
    (server.directory / "redis.conf").write_text(
        mounts.path("/etc/redis/redis.conf").read_text().replace("dir /data", "")
    )
    # Its user for probes is the one that asks whether it is up.
    yield server.start()
    server.stop()


def test_edge_works_on_the_redis_of_the_cluster_with_its_users(
    redis: list[Object], cluster_redis: RedisServer, tmp_path: Path
) -> None:
    url = f"redis://gateway:secret@127.0.0.1:{cluster_redis.port}/0"
    assert_works(redis, url, tmp_path)


@slow("PostgreSQL")
def test_edge_works_on_a_postgresql_with_the_documented_secret(
    on_postgresql: list[Object],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its certificate is verified by the CA beside the URL."""
    made = make_certificate(tmp_path, "127.0.0.1")
    server = PostgresServer(tmp_path_factory.mktemp("postgresql"))
    server.create(certificate=made).start()
    try:
        text = (ROOT / "docs" / "guides" / "kubernetes.md").read_text()
        (documented,) = re.findall(r"store-url='(postgresql:[^']+)'", text)
        place = f"gateway:{PASSWORD}@127.0.0.1:{server.port}"
        url = documented.replace("USER:PASSWORD@HOST:5432", place)
        assert_works(on_postgresql, url, tmp_path, {"store-ca.crt": made.cert.read_text()})
    finally:
        server.stop()


def assert_works(
    found: list[Object], url: str, tmp_path: Path, more: dict[str, str] | None = None
) -> None:
    """A client is registered, gets a token, uses it, and revokes it."""
    secrets = documented_secrets()
    secrets["gateway"] |= {"store-url": url, **(more or {})}
    gateway = ContainerProcess(
        tmp_path, found, secrets=secrets, change=lambda s: s.update(shutdown={"delay": 0})
    )
    gateway.start()
    try:
        with httpx.Client(base_url=gateway.url, verify=False) as client:
            created = client.post(
                "/createClient",
                headers={"Authorization": f"Bearer {secrets['gateway']['registration-token']}"},
                json={"client_id": "shop", "client_secret": "shop-secret"},
            )
            assert created.status_code == 201, created.text
            response = client.post(
                "/token", data={"grant_type": "client_credentials"}, auth=("shop", "shop-secret")
            )
            assert response.status_code == 200, response.text
            token = response.json()["access_token"]
            # There is no upstream here: 502 is beyond authentication.
            headers = {"Authorization": f"Bearer {token}"}
            assert client.get("/v1/orders", headers=headers).status_code == 502
            assert client.get("/v1/orders").status_code == 401
            client.post("/revoke", data={"token": token}, auth=("shop", "shop-secret"))
            wait_until(lambda: client.get("/v1/orders", headers=headers).status_code == 401)
    finally:
        assert gateway.stop() == 0


def _config_of(found: list[Object], root: Path) -> Config:
    pod = pod_of(the(found, "Deployment"))
    mounts = Mounts(
        root, pod, container(pod, "gateway"),
        config_maps=config_maps(found), secrets=documented_secrets(),
    )  # fmt: skip
    return load_config(mounts.path("/etc/gateway/gateway.yaml"))
