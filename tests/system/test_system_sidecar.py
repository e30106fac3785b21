"""The life of a sidecar and of a replica at the edge, with the files that `deploy/` gives them
and the signals that the kubelet sends."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from support.clients.load_client import LoadClient
from support.cluster_secrets import documented_secrets, tls_secret
from support.deadlines import scaled, wait_until
from support.deploy_tools import Object, kustomize
from support.processes.application import Application
from support.processes.container import ContainerProcess, Settings
from support.processes.redis import RedisServer
from support.tiers import slow

from examples.ports import free_port

pytestmark = [slow("pods"), pytest.mark.system]


class Pod:
    """A gateway as native sidecar, and the application beside it."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.app = Application(port)

        def change(settings: Settings) -> None:
            settings["upstreams"]["app"] = {"targets": [f"http://127.0.0.1:{port}"]}

        self.gateway = ContainerProcess(directory, kustomize("k8s/overlays/sidecar"), change=change)
        self.token = ""

    def start(self) -> None:
        """The sidecar first, then the application, as the kubelet does."""
        self.gateway.start()
        self.app.start()
        wait_until(self.is_ready)
        self.gateway.create_client(registration_token=REGISTRATION_TOKEN)
        self.token = self.gateway.get_token()

    def is_ready(self) -> bool:
        """Whether the application's readiness probe succeeds."""
        return httpx.get(f"{self.gateway.url}/health").status_code == 200

    def get(self, path: str, **options: float) -> httpx.Response:
        """A request with a token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.get(f"{self.gateway.url}{path}", headers=headers, **options)  # type: ignore[arg-type]


REGISTRATION_TOKEN = documented_secrets()["gateway"]["registration-token"]


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    """A pod that is not started yet."""
    made = Pod(tmp_path)
    yield made
    made.app.let_go()
    made.app.stop()
    if hasattr(made.gateway, "process"):
        made.gateway.stop()


class Asking(threading.Thread):
    """A request under way."""

    def __init__(self, fetch: Callable[[], httpx.Response]) -> None:
        super().__init__(daemon=True)
        self._fetch = fetch
        self.response: httpx.Response | None = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Ask."""
        try:
            self.response = self._fetch()
        except httpx.HTTPError as error:
            self.error = error

    def status(self) -> int:
        """Of the response."""
        self.join(timeout=scaled())
        assert self.response is not None, repr(self.error)
        return self.response.status_code


def test_sidecar_is_ready_before_its_application_and_serves_as_soon_as_that_is_up(
    pod: Pod,
) -> None:
    pod.gateway.start()  # waits for /readyz
    assert httpx.get(f"{pod.gateway.admin_url}/healthz").status_code == 200
    assert not pod.is_ready()
    # Its own paths need no application.
    pod.gateway.create_client(registration_token=REGISTRATION_TOKEN)
    pod.token = pod.gateway.get_token()
    response = pod.get("/orders")
    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"

    pod.app.start()
    wait_until(pod.is_ready)
    assert pod.get("/orders").text == "ok"


def test_pod_that_stops_finishes_what_it_has_begun(pod: Pod) -> None:
    pod.start()
    under_way = Asking(lambda: pod.get("/orders?held"))
    wait_until(lambda: inflight(pod.gateway) == 1)
    # preStop: the application serves on while the pod is taken out of its Services.
    assert pod.get("/orders").status_code == 200
    # The application is told first, and has requests of its own to finish.
    stopping = threading.Thread(target=pod.app.stop)
    stopping.start()
    wait_until(lambda: not pod.app.is_listening())
    pod.app.let_go()
    assert under_way.status() == 200
    stopping.join()
    # The sidecar hears of it only now, and has nothing to wait for.
    assert pod.gateway.stop() == 0


def test_sidecar_that_is_asked_to_stop_drains_within_its_grace(pod: Pod) -> None:
    pod.start()
    under_way = Asking(lambda: pod.get("/orders?held"))
    wait_until(lambda: inflight(pod.gateway) == 1)
    pod.gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: httpx.get(f"{pod.gateway.admin_url}/readyz").status_code == 503)
    pod.app.let_go()
    assert under_way.status() == 200
    assert pod.gateway.process.wait(timeout=scaled()) == 0


def test_request_that_outlasts_the_grace_does_not_hold_the_pod_up(pod: Pod) -> None:
    pod.gateway.configure(lambda settings: settings["shutdown"].update(grace="500ms"))
    pod.start()
    under_way = Asking(lambda: pod.get("/orders?held"))
    wait_until(lambda: inflight(pod.gateway) == 1)
    pod.gateway.process.send_signal(signal.SIGTERM)
    assert pod.gateway.process.wait(timeout=scaled()) == 0
    under_way.join(timeout=scaled())
    assert under_way.error is not None


def test_nothing_is_lost_when_a_replica_is_rolled(pod: Pod) -> None:
    pod.gateway.configure(lambda settings: settings["shutdown"].update(delay="500ms"))
    pod.start()
    clients = [LoadClient(pod.gateway.port, pod.token) for _ in range(4)]
    for client in clients:
        client.start()
    wait_until(lambda: all(client.completed > 20 for client in clients))
    assert pod.gateway.stop() == 0
    for client in clients:
        client.join(timeout=scaled())
        assert client.lost == []
        assert client.wrong == 0
        assert client.was_refused


def inflight(gateway: ContainerProcess) -> float:
    """Requests that it is answering now."""
    page = httpx.get(f"{gateway.admin_url}/metrics").text
    (line,) = [line for line in page.splitlines() if line.startswith("gateway_inflight_requests ")]
    return float(line.split()[1])


@pytest.fixture
def edge() -> list[Object]:
    """The objects of the overlay `edge`."""
    return kustomize("k8s/overlays/edge")


@pytest.mark.parametrize("ready_without_store", [True, False])
def test_store_that_is_unavailable_at_the_start_is_waited_for(
    edge: list[Object], tmp_path: Path, ready_without_store: bool
) -> None:
    redis = RedisServer(tmp_path)  # not started yet
    secrets = documented_secrets()
    secrets["gateway"]["store-url"] = f"{redis.url}/0"

    def change(settings: Settings) -> None:
        settings["ready_without_store"] = ready_without_store
        settings["shutdown"] = {"delay": 0}

    gateway = ContainerProcess(tmp_path, edge, secrets=secrets, change=change)
    gateway.start(wait_for="/healthz")
    try:
        with httpx.Client(base_url=gateway.url, verify=False) as client:

            def register() -> httpx.Response:
                return client.post(
                    "/createClient",
                    headers={"Authorization": f"Bearer {REGISTRATION_TOKEN}"},
                    json={"client_id": "shop", "client_secret": "shop-secret"},
                )

            # Alive, and no reason to be restarted.
            ready = 200 if ready_without_store else 503
            wait_until(lambda: httpx.get(f"{gateway.admin_url}/readyz").status_code == ready)
            # The port of the data plane may be opened after that of the probes.
            refused = wait_until(lambda: responding(register))
            assert refused is not None
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            # An unknown token is neither good nor bad while nobody can tell.
            headers = {"Authorization": "Bearer unknown"}
            assert client.get("/v1/orders", headers=headers).status_code == 503

            redis.start()
            wait_until(lambda: httpx.get(f"{gateway.admin_url}/readyz").status_code == 200)
            wait_until(lambda: register().status_code == 201)
            assert client.get("/v1/orders", headers=headers).status_code == 401
    finally:
        assert gateway.stop() == 0
        redis.stop()
    assert "Traceback" not in gateway.errors()


def responding(request: Callable[[], httpx.Response]) -> httpx.Response | None:
    """The response; None while no server listens."""
    try:
        return request()
    except httpx.ConnectError:
        return None


QUICK = {"interval": "50ms", "debounce": "50ms"}


def reload_quickly(settings: Settings) -> None:
    """Look at the files more often than is worth it in a cluster."""
    settings["reload"] = QUICK


def reloads(gateway: ContainerProcess, result: str) -> float:
    """How many loads of the configuration ended so."""
    page = httpx.get(f"{gateway.admin_url}/metrics").text
    sample = f'gateway_config_reloads_total{{result="{result}"}} '
    return sum(float(line.split()[1]) for line in page.splitlines() if line.startswith(sample))


def test_changed_config_map_is_served_without_a_restart_and_without_a_lost_request(
    pod: Pod,
) -> None:
    pod.gateway.configure(reload_quickly)
    pod.start()
    clients = [LoadClient(pod.gateway.port, pod.token) for _ in range(2)]
    for client in clients:
        client.start()
    under_way = Asking(lambda: pod.get("/orders?held"))
    wait_until(lambda: inflight(pod.gateway) >= 1)

    def close_reports(settings: Settings) -> None:
        settings["provider"] = settings["provider"] | {"scopes": ["reports"]}
        settings["routes"] = [
            {"name": "reports", "match": {"path": "/reports"}, "upstream": "app",
             "scopes": ["reports"]},
            *settings["routes"],
        ]  # fmt: skip

    assert pod.get("/reports").status_code == 200
    pod.gateway.configure(close_reports)
    wait_until(lambda: pod.get("/reports").status_code == 403)
    pod.app.let_go()
    assert under_way.status() == 200

    # A mistake is told of, and changes nothing.
    pod.gateway.configure(lambda settings: settings.update(upstream={}))
    wait_until(lambda: reloads(pod.gateway, "error"))
    pod.gateway.wait_for_line("upstream: unknown key, did you mean 'upstreams'?")
    assert pod.get("/reports").status_code == 403
    assert pod.get("/orders").status_code == 200

    assert pod.gateway.process.poll() is None
    assert pod.gateway.stop() == 0
    for client in clients:
        client.join(timeout=scaled())
        assert client.lost == []
        assert client.wrong == 0


def test_changed_secret_is_taken_over(pod: Pod) -> None:
    def forgive(settings: Settings) -> None:
        # Who asks again and again with the new token before it holds is not kept out for it.
        reload_quickly(settings)
        limit = {"failed_client_limit": {"failures": 1_000_000}}
        settings["provider"] = settings["provider"] | limit

    pod.gateway.configure(forgive)
    pod.start()
    secrets = documented_secrets()["gateway"]
    pod.gateway.mounts.volumes["secrets"].update(
        secrets | {"registration-token": "another-registration-token"}
    )

    def register(token: str) -> int:
        return httpx.post(
            f"{pod.gateway.url}/createClient",
            headers={"Authorization": f"Bearer {token}"},
            json={"client_id": "second", "client_secret": "second-secret"},
        ).status_code

    wait_until(lambda: register("another-registration-token") == 201)
    assert register(REGISTRATION_TOKEN) == 401
    # Clients and tokens are what they were.
    assert pod.get("/orders").status_code == 200


def test_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(
    edge: list[Object], tmp_path: Path
) -> None:
    redis = RedisServer(tmp_path).start()
    secrets = documented_secrets()
    secrets["gateway"]["store-url"] = f"{redis.url}/0"

    def change(settings: Settings) -> None:
        reload_quickly(settings)
        settings["shutdown"] = {"delay": 0}

    gateway = ContainerProcess(tmp_path, edge, secrets=secrets, change=change)
    gateway.start()
    try:
        before = shown_certificate(gateway.port)
        assert before == ssl.PEM_cert_to_DER_cert(secrets["gateway-tls"]["tls.crt"])
        with httpx.Client(base_url=gateway.url, verify=False) as client:
            assert client.get("/v1/orders").status_code == 401
            renewed = tls_secret()
            gateway.mounts.volumes["tls"].update(renewed)
            wait_until(lambda: shown_certificate(gateway.port) != before)
            assert shown_certificate(gateway.port) == ssl.PEM_cert_to_DER_cert(renewed["tls.crt"])
            wait_until(lambda: reported_end(gateway) == end_of(renewed["tls.crt"]))
            # This connection was made under the old one.
            assert client.get("/v1/orders").status_code == 401
        # A certificate without its key is refused, and the last good one goes on.
        shown = shown_certificate(gateway.port)
        gateway.mounts.volumes["tls"].update(tls_secret() | {"tls.key": renewed["tls.key"]})
        wait_until(lambda: reloads(gateway, "error"))
        assert shown_certificate(gateway.port) == shown
    finally:
        assert gateway.stop() == 0
        redis.stop()
    assert "Traceback" not in gateway.errors()


def reported_end(gateway: ContainerProcess) -> float:
    """When the certificate in use ends, as the metrics tell it."""
    page = httpx.get(f"{gateway.admin_url}/metrics").text
    sample = 'gateway_certificate_expiry_timestamp_seconds{certificate="listen"} '
    (line,) = [line for line in page.splitlines() if line.startswith(sample)]
    return float(line.split()[1])


def end_of(certificate: str) -> float:
    """The end of a certificate in PEM."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc.timestamp()


def shown_certificate(port: int) -> bytes:
    """The certificate that a new connection is shown, DER."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=scaled()) as connection,
        context.wrap_socket(connection) as secured,
    ):
        found = secured.getpeercert(binary_form=True)
        assert found is not None
        return found
