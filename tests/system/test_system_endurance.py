"""A gateway process under load that is told to stop, and one that moves 2 GiB each way."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from pathlib import Path

import httpx
import psutil
import pytest
from support.clients.load_client import LoadClient, completed_by
from support.deadlines import duration, scaled, wait_until
from support.processes.gateway import GatewayProcess, gateway_process
from support.servers.raw_upstream import OK, Conversation, RawUpstream, thread_upstream
from support.tiers import slow

pytestmark = pytest.mark.system

GIB = 1 << 30
PIECE = b"\xa5" * (256 * 1024)


async def respond_after_a_moment(conversation: Conversation, upstream: RawUpstream) -> None:
    while await conversation.read_head():
        await asyncio.sleep(0.002)
        await conversation.send(OK)


def readiness(gateway: GatewayProcess) -> int:
    return httpx.get(f"{gateway.admin_url}/readyz").status_code


@slow("under load")
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_loses_nothing(tmp_path: Path, workers: int) -> None:
    with thread_upstream(respond_after_a_moment) as upstream:
        shutdown = {"delay": duration(1), "grace": duration(10)}
        with gateway_process(tmp_path, upstream.url, shutdown=shutdown, workers=workers) as gateway:
            gateway.create_client()
            token = gateway.get_token()
            clients = [LoadClient(gateway.port, token) for _ in range(32)]
            for client in clients:
                client.start()
            wait_until(lambda: completed_by(clients) >= 2000)
            gateway.process.send_signal(signal.SIGTERM)
            wait_until(lambda: readiness(gateway) == 503)
            before = completed_by(clients)
            for client in clients:
                client.join(timeout=scaled())
            assert gateway.process.wait(timeout=scaled()) == 0
    completed = completed_by(clients)
    print(f"SIGTERM under load: {completed} answered, {completed - before} of them while draining")
    assert [client.lost for client in clients if client.lost] == []
    assert sum(client.wrong for client in clients) == 0
    assert all(client.was_refused for client in clients)
    assert completed > before, "it goes on serving while it drains"
    lines = (tmp_path / "access.log").read_text().splitlines()
    assert sum('"path":"/api/x"' in line for line in lines) == completed


def test_second_signal_ends_the_drain(tmp_path: Path) -> None:
    shutdown = {"delay": "1h", "grace": "1h"}
    with gateway_process(tmp_path, "http://127.0.0.1:9", shutdown=shutdown) as gateway:
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: readiness(gateway) == 503)
        assert gateway.stop() == 0


class MemoryWatch(threading.Thread):
    """The highest resident memory of a process while it runs."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._stop_asked = threading.Event()
        self.peak_mib = 0.0

    def run(self) -> None:
        """Look every 10 ms."""
        while not self._stop_asked.wait(0.01):
            self.peak_mib = max(self.peak_mib, self._process.memory_info().rss / (1 << 20))

    def finish(self) -> float:
        """The peak, in MiB."""
        self._stop_asked.set()
        self.join()
        return self.peak_mib


async def send_two_gib(conversation: Conversation, upstream: RawUpstream) -> None:
    received = await conversation.read_head()
    assert received is not None
    if received.request_line.startswith(b"PUT"):
        upstream.broken_bodies = await count_body(conversation)
        await conversation.send(OK)
        return
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * GIB))
    for _ in range(2 * GIB // len(PIECE)):
        await conversation.send(PIECE)


async def count_body(conversation: Conversation) -> int:
    size = 0
    while size < 2 * GIB:
        size += len(await conversation.reader.read(1 << 20))
    return size


@slow("2 GiB")
def test_two_gib_pass_each_way_in_little_memory(tmp_path: Path) -> None:
    with (
        thread_upstream(send_two_gib) as upstream,
        gateway_process(tmp_path, upstream.url) as gateway,
    ):
        watch = MemoryWatch(gateway.process.pid)
        watch.start()
        received = 0
        with httpx.stream("GET", f"{gateway.url}/public/big", timeout=scaled(60)) as response:
            for piece in response.iter_raw(1 << 20):
                received += len(piece)
        assert received == 2 * GIB
        download_mib = watch.finish()

        watch = MemoryWatch(gateway.process.pid)
        watch.start()
        upload(gateway.port)
        upload_mib = watch.finish()
        assert upstream.broken_bodies == 2 * GIB
    print(f"2 GiB down: peak {download_mib:.0f} MiB; 2 GiB up: peak {upload_mib:.0f} MiB")
    assert download_mib < 100
    assert upload_mib < 100


def upload(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=scaled(60)) as connection:
        connection.sendall(
            b"PUT /public/big HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (2 * GIB)
        )
        for _ in range(2 * GIB // len(PIECE)):
            connection.sendall(PIECE)
        assert b" 200 OK" in connection.recv(65536)
