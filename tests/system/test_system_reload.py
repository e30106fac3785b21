"""A gateway that runs takes over what its files have become, and loses nothing over it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.clients.load_client import LoadClient, completed_by
from support.config_file import edit, replace, route
from support.deadlines import scaled, wait_until
from support.jose_values import make_certificate
from support.processes.gateway import GatewayProcess
from support.running_gateway import ADMIN_TOKEN, REGISTRATION_TOKEN
from support.servers.raw_upstream import RawUpstream, thread_upstream
from support.tiers import slow

pytestmark = pytest.mark.system

ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
QUICK = {"interval": "50ms", "debounce": "50ms"}
UNWATCHED = {"watch": False}
RELOADS = 40


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with thread_upstream() as running:
        yield running


@pytest.fixture(params=[1, 2])
def gateway(
    request: pytest.FixtureRequest, upstream: RawUpstream, tmp_path: Path
) -> Iterator[GatewayProcess]:
    """One in one process, and one in several."""
    sections = {"workers": request.param, "reload": UNWATCHED}
    with started(GatewayProcess(tmp_path, upstream.url, **sections)) as running:
        yield running


@pytest.fixture
def watching(upstream: RawUpstream, tmp_path: Path) -> GatewayProcess:
    """One that looks at its files, not started yet."""
    return GatewayProcess(tmp_path, upstream.url, reload=QUICK)


@contextlib.contextmanager
def started(gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.errors()


def metric(gateway: GatewayProcess, name: str, **labels: str) -> float:
    page = httpx.get(f"{gateway.admin_url}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def reloads(gateway: GatewayProcess, result: str) -> float:
    return metric(gateway, "gateway_config_reloads_total", result=result)


def reload(gateway: GatewayProcess) -> httpx.Response:
    return httpx.post(f"{gateway.admin_url}/api/v1/reload", headers=ADMIN, timeout=scaled(60))


def status(gateway: GatewayProcess, path: str) -> int:
    return httpx.get(gateway.url + path).status_code


def add_route(gateway: GatewayProcess, name: str) -> None:
    edit(gateway.config, lambda config: config["routes"].append(route(name)))


def test_hang_up_loads_the_file_in_every_process(gateway: GatewayProcess) -> None:
    add_route(gateway, "fresh")
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: reloads(gateway, "ok"))
    # Each is a connection of its own, so each worker gets some.
    assert {status(gateway, "/fresh") for _ in range(30)} == {200}
    gateway.wait_for_line("reload (signal): ok in ")
    gateway.wait_for_line("routes[fresh]: added")


def test_bad_file_is_refused_by_all_and_the_last_good_one_goes_on(gateway: GatewayProcess) -> None:
    good = gateway.config.read_text()
    replace(gateway.config, good + "lisen: {}\n")
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: reloads(gateway, "error"))
    gateway.wait_for_line("lisen: unknown key, did you mean 'listen'?")
    assert {status(gateway, "/public") for _ in range(20)} == {200}
    edit(gateway.config, lambda config: (config.pop("lisen"), config.update(workers=5)))
    response = reload(gateway)
    assert response.status_code == 422
    assert "workers: can't change while the gateway runs" in response.json()["problems"][0]
    replace(gateway.config, good)
    assert reload(gateway).json()["result"] == "ok"
    assert (reloads(gateway, "ok"), reloads(gateway, "error")) == (1, 2)


def test_worker_that_is_replaced_starts_with_what_was_loaded_last(
    gateway: GatewayProcess,
) -> None:
    add_route(gateway, "fresh")
    assert reload(gateway).status_code == 200
    workers = [
        child
        for child in psutil.Process(gateway.process.pid).children(recursive=True)
        if "gateway.app.worker" in child.cmdline()
    ]
    if workers:
        workers[0].kill()
        wait_until(lambda: metric(gateway, "gateway_worker_restarts_total"))
        wait_until(lambda: metric(gateway, "gateway_workers") == len(workers))
    assert {status(gateway, "/fresh") for _ in range(30)} == {200}
    assert reload(gateway).json()["changes"] == []


@slow("under load")
def test_no_request_is_lost_or_wrong_in_many_reloads_under_load(
    gateway: GatewayProcess, upstream: RawUpstream
) -> None:
    gateway.create_client()
    token = gateway.get_token()
    clients = [LoadClient(gateway.port, token) for _ in range(8)]
    with thread_upstream() as other:
        for client in clients:
            client.start()
        for number in range(RELOADS):

            def change(config: dict[str, Any], number: int = number) -> None:
                config["upstreams"]["main"]["targets"] = [(upstream, other)[number % 2].url]
                config["routes"][0]["name"] = f"public{number}"
                config["cache"] = {"ttl": f"{number + 1}s"}

            edit(gateway.config, change)
            before = completed_by(clients)
            assert reload(gateway).status_code == 200
            wait_until(lambda before=before: completed_by(clients) >= before + 20)  # type: ignore[misc]
        gateway.stop()
        for client in clients:
            client.join(timeout=scaled(30))
        served = len(other.requests)
    assert [client.lost for client in clients] == [[]] * len(clients)
    assert sum(client.wrong for client in clients) == 0
    assert completed_by(clients) >= RELOADS * 20
    assert served > RELOADS * 5, "both upstreams had their turns"
    gateway.wait_for_line("reload (api): ok", count=RELOADS)


def test_file_that_is_renamed_into_place_is_noticed(watching: GatewayProcess) -> None:
    with started(watching) as gateway:
        add_route(gateway, "fresh")
        wait_until(lambda: status(gateway, "/fresh") == 200)
        gateway.wait_for_line("reload (file): ok")
        replace(gateway.config, "routes: [")
        wait_until(lambda: reloads(gateway, "error") == 1)
        assert status(gateway, "/fresh") == 200


def test_link_that_kubernetes_turns_is_noticed(watching: GatewayProcess) -> None:
    text = watching.config.read_text()
    mounted = watching.directory / "mounted"
    (mounted / "..v1").mkdir(parents=True)
    (mounted / "..v1" / "gateway.yaml").write_text(text)
    (mounted / "..data").symlink_to("..v1")
    watching.config = mounted / "gateway.yaml"
    watching.config.symlink_to("..data/gateway.yaml")
    with started(watching) as gateway:
        config = yaml.safe_load(text)
        config["routes"].append(route("fresh"))
        (mounted / "..v2").mkdir()
        (mounted / "..v2" / "gateway.yaml").write_text(yaml.safe_dump(config))
        (mounted / "..data_tmp").symlink_to("..v2")
        os.rename(mounted / "..data_tmp", mounted / "..data")
        shutil.rmtree(mounted / "..v1")
        wait_until(lambda: status(gateway, "/fresh") == 200)
        assert reloads(gateway, "error") == 0


def test_secret_in_a_file_of_its_own_is_noticed(watching: GatewayProcess) -> None:
    secret = watching.directory / "registration"
    secret.write_text("first-secret\n")

    def change(config: dict[str, Any]) -> None:
        config["provider"]["registration"]["token"] = "${file:registration}"
        # Who asks again and again with the new token before it holds is not kept out for it.
        config["provider"]["failed_client_limit"] = {"failures": 1_000_000}

    def register(token: str) -> int:
        return httpx.post(
            f"{watching.url}/createClient",
            json={"client_name": "n"},
            headers={"Authorization": f"Bearer {token}"},
        ).status_code

    edit(watching.config, change)
    with started(watching) as gateway:
        assert (register(REGISTRATION_TOKEN), register("first-secret")) == (401, 201)
        replace(secret, "second-secret\n")
        wait_until(lambda: register("second-secret") == 201)
        assert register("first-secret") == 401
        gateway.wait_for_line("provider.registration.token: *** -> ***")
        assert "second-secret" not in gateway.errors()


@pytest.mark.parametrize("workers", [1, 2])
def test_certificate_is_rotated_while_connections_go_on(
    upstream: RawUpstream, tmp_path: Path, workers: int
) -> None:
    first, second = (make_certificate(tmp_path, name) for name in ("first", "second"))
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    shutil.copy(first.cert, cert)
    shutil.copy(first.key, key)
    process = GatewayProcess(
        tmp_path,
        upstream.url,
        listen={"tls": {"cert": str(cert), "key": str(key)}},
        reload=QUICK,
        workers=workers,
    )
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE

    def connect() -> ssl.SSLSocket:
        return trust.wrap_socket(socket.create_connection(("127.0.0.1", process.port)))

    def shown() -> set[bytes | None]:
        found = set()
        for _ in range(20):
            with connect() as connection:
                found.add(connection.getpeercert(binary_form=True))
        return found

    def fetch(connection: ssl.SSLSocket) -> bytes:
        connection.sendall(b"GET /public HTTP/1.1\r\nHost: h\r\n\r\n")
        response = b""
        while not response.endswith(b"ok"):
            response += connection.recv(65536)
        return response

    with started(process) as gateway:
        open_before = connect()
        assert shown() == {first.der}
        # Half of the pair is no pair: refused, and the old one goes on.
        replace(cert, second.cert.read_text())
        wait_until(lambda: reloads(gateway, "error") == 1)
        gateway.wait_for_line("not the key of the certificate in")
        assert shown() == {first.der}
        replace(key, second.key.read_text())
        wait_until(lambda: reloads(gateway, "ok") == 1)
        assert shown() == {second.der}
        assert b" 200 OK" in fetch(open_before)
        open_before.close()
