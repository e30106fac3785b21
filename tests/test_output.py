"""Output that is not read, or can not be written: nothing waits for it, and no line is cut."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support.deadlines import scaled, wait_until
from support.processes.gateway import GatewayProcess
from support.running_gateway import ADMIN_TOKEN

from gateway import output
from gateway.access_log import AccessRecord, JsonAccessLog, open_access_log

F_SETPIPE_SZ = 1031


def make_record(number: int) -> AccessRecord:
    return AccessRecord(
        time="t", client="c", method="GET", path=f"/{number}", route="r", status=200,
        source="upstream", duration_ms=1.5, request_id="id",
    )  # fmt: skip


def test_logging_does_not_wait_for_a_standard_error_that_is_not_read() -> None:
    script = (
        "import logging, os\n"
        "from gateway.app.logs import count_dropped_lines, set_up_logging\n"
        "set_up_logging(); lost = []; count_dropped_lines(lost.append)\n"
        "for number in range(40_000): logging.warning('line %d', number)\n"
        "print('done', sum(lost) > 1000, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"done True\n"
    assert process.wait(timeout=scaled()) == 0, "nor does the end of the process"
    assert process.stderr.read().startswith(b"20")
    process.stdout.close()
    process.stderr.close()


def test_gateway_whose_standard_error_is_not_read_serves_and_stops(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, "http://127.0.0.1:9", shutdown={"delay": 0, "grace": "1s"})
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "run", "-c", str(gateway.config)],
        stderr=writer, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writer)
    try:

        def is_ready() -> bool:
            try:
                return httpx.get(f"{gateway.admin_url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_ready)
        with httpx.Client(headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}) as client:
            for _ in range(150):  # a line each
                response = client.put(
                    f"{gateway.admin_url}/api/v1/log-level", json={"level": "INFO"},
                    timeout=scaled(),
                )  # fmt: skip
                assert response.status_code == 200
        assert httpx.get(f"{gateway.admin_url}/healthz", timeout=scaled()).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=scaled()) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def test_pipe_that_does_not_block_gets_whole_lines() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    dropped: list[int] = []
    log = JsonAccessLog(writer, on_drop=dropped.append)
    received = bytearray()

    def read() -> None:
        while piece := os.read(reader, 1000):
            received.extend(piece)

    thread = threading.Thread(target=read)
    for number in range(4000):
        log.write(make_record(number))
    thread.start()
    log.close()
    os.close(writer)
    thread.join()
    os.close(reader)
    lines = [json.loads(line) for line in received.splitlines()]
    assert [line["path"] for line in lines] == [f"/{number}" for number in range(4000)]
    assert dropped == []


def test_line_that_was_cut_is_ended_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    script = (
        "import json, resource, sys\n"
        "from gateway.output import LineWriter\n"
        "import os\n"
        "def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))\n"
        "lost, troubles = [], []\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "out = LineWriter(fd, name='t', max_pending_bytes=10**6, on_drop=lost.append,\n"
        "                 on_trouble=troubles.append)\n"
        "def wait():\n"
        "    while out._written_bytes < out._queued_bytes: pass\n"
        "limit(1050)\n"
        "out.write(b'x' * 99 + b'\\n'); wait()\n"
        "for _ in range(3): out.write((b'y' * 99 + b'\\n') * 20); wait()\n"
        "limit(-1)\n"
        "for _ in range(2): out.write(b'z' * 99 + b'\\n'); wait()\n"
        "out.close()\n"
        "print(json.dumps([sum(lost), troubles]))\n"
    )
    path = tmp_path / "out.log"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, check=True, timeout=scaled()
    )
    lines = path.read_text().splitlines()
    assert [line[0] + str(len(line)) for line in lines] == [
        "x99",
        *["y99"] * 9,
        "y50",
        "z99",
        "z99",
    ]
    lost, troubles = json.loads(done.stdout)
    assert lost == 60 - 9
    assert troubles == ["File too large", ""]


def test_log_that_was_renamed_or_removed_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LOOK_S", 0.0)
    path = tmp_path / "access.log"
    log = open_access_log(str(path), on_drop=lambda lines: None)
    try:
        moves: list[Callable[[], object]] = [lambda: path.rename(tmp_path / "old.log"), path.unlink]
        for number, lose in enumerate(moves):
            log.write(make_record(number))
            log.flush()
            wait_until(lambda: path.exists() and path.read_bytes().endswith(b"\n"))
            lose()
        log.write(make_record(9))
    finally:
        log.close()
    assert [json.loads(line)["path"] for line in path.read_text().splitlines()] == ["/9"]
    assert [
        json.loads(line)["path"] for line in (tmp_path / "old.log").read_text().splitlines()
    ] == ["/0"]
