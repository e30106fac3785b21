"""Replicas and workers as processes: the clients of the configuration are theirs, exactly once."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from support.processes.gateway import GatewayProcess
from support.processes.postgresql import PostgresServer
from support.processes.redis import RedisServer

from gateway.cli import main


def make_replica(directory: Path, name: str, store: str, *, workers: int = 1) -> GatewayProcess:
    own = directory / name
    (own / "teams").mkdir(parents=True)
    (own / "billing").write_text("billing-secret")
    (own / "teams" / "billing.yaml").write_text("billing: {secret: '${file:../billing}'}\n")
    return GatewayProcess(
        own,
        "http://127.0.0.1:9",
        store=store,
        workers=workers,
        clients_dir="./teams",
        reload={"interval": "20ms", "debounce": "10ms"},
    )


@pytest.mark.parametrize("kind", ["redis", "postgresql"])
def test_of_two_replicas_one_brings_the_clients_into_the_store(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    workers = 1
    if kind == "redis":
        workers = 2
        redis: RedisServer = request.getfixturevalue("redis_server")
        store = redis.url
    else:
        postgresql: PostgresServer = request.getfixturevalue("empty_postgresql")
        store = postgresql.url
    with ExitStack() as stack:
        replicas = [
            make_replica(tmp_path, "one", store, workers=workers),
            make_replica(tmp_path, "two", store),
        ]
        starts = [threading.Thread(target=replica.start) for replica in replicas]
        for start in starts:
            start.start()
        for replica, start in zip(replicas, starts, strict=True):
            stack.callback(replica.stop)
            start.join()
        for replica in replicas:
            assert replica.get_token("billing", "billing-secret")
        created = [replica.errors().count("billing created") for replica in replicas]
        assert sorted(created) == [0, 1]
        # A team's file reaches one replica first: that makes the client, the other knows of it.
        (replicas[1].directory / "teams" / "shop.yaml").write_text(
            "shop: {secret: '${file:../billing}'}\n"
        )
        replicas[1].wait_for_line("shop created")
        assert replicas[0].get_token("shop", "billing-secret")
        (replicas[1].directory / "teams" / "shop.yaml").unlink()
        replicas[1].wait_for_line("shop disabled")
        form = {"grant_type": "client_credentials"}
        auth = ("shop", "billing-secret")
        assert httpx.post(f"{replicas[0].url}/token", data=form, auth=auth).status_code == 401


def test_commands_leave_a_declared_client_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replica = make_replica(tmp_path, "one", f"sqlite:///{tmp_path}/gateway.db")
    replica.start()
    try:
        (replica.directory / "billing").unlink()  # which no command needs

        def run(*arguments: str) -> int:
            return main(["client", *arguments, "-c", str(replica.config)])

        for arguments in (
            ("delete", "billing"), ("rotate", "billing"), ("update", "billing", "--name", "B"),
            ("renew", "billing"), ("limit", "billing", "--requests", "1"),
            ("create", "billing", "--replace"),
        ):  # fmt: skip
            assert run(*arguments) == 1, arguments
            stated = "declared in the configuration (clients_owner 'config')"
            assert stated in capsys.readouterr().err
        assert run("show", "billing") == 0
        assert "the configuration (clients_owner config)" in capsys.readouterr().out
        assert replica.get_token("billing", "billing-secret")
        assert run("release", "billing") == 0
        assert run("delete", "billing") == 0
    finally:
        replica.stop()
