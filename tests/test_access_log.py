"""The access log: every line whole, none waited for, what can't be written counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.deadlines import scaled

from gateway.access_log import (
    AccessRecord,
    JsonAccessLog,
    ProcessTurn,
    Timestamps,
    open_access_log,
)


def fail_on_drop(count: int) -> None:
    pytest.fail(f"{count} lines were dropped")


def make_record(number: int) -> AccessRecord:
    return AccessRecord(
        time="t", client="c", method="GET", path=f"/{number}", route="r", status=200,
        source="upstream", duration_ms=1.5, request_id="id",
    )  # fmt: skip


def test_lines_are_whole_and_in_order_and_leave_out_what_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = open_access_log(str(path), on_drop=fail_on_drop)
    for number in range(5000):
        log.write(make_record(number))
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["path"] for line in lines] == [f"/{number}" for number in range(5000)]
    assert list(lines[0]) == [
        "time", "client", "method", "path", "route", "status", "source", "duration_ms",
        "request_id",
    ]  # fmt: skip


def test_lines_of_a_busy_moment_are_handed_over_together_and_the_rest_when_asked(
    tmp_path: Path,
) -> None:
    log = open_access_log(str(tmp_path / "access.log"), on_drop=fail_on_drop)
    assert log.lines is not None
    sizes = []
    for number in range(5000):
        log.write(make_record(number))
        sizes.append(len(log.lines))
    assert 200 * 1024 < max(sizes) < 256 * 1024
    log.flush()
    assert not log.lines
    log.close()


def test_log_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    for number in range(2):
        log = open_access_log(str(path), on_drop=fail_on_drop)
        log.write(make_record(number))
        log.close()
    assert len(path.read_text().splitlines()) == 2


def test_line_breaks_in_values_do_not_break_lines(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = open_access_log(str(path), on_drop=fail_on_drop)
    record = make_record(0)
    record.path = '/\n{"status": 200}\r\u2028'
    log.write(record)
    log.close()
    (line,) = path.read_bytes().splitlines()
    assert json.loads(line)["path"] == record.path


def test_sink_that_takes_nothing_drops_lines_and_delays_no_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.access_log.MAX_PENDING_BYTES", 100_000)
    reader, writer = os.pipe()
    dropped: list[int] = []
    log = JsonAccessLog(writer, on_drop=dropped.append)
    for number in range(20_000):
        log.write(make_record(number))  # waits for ever, if it waits for the pipe
    assert sum(dropped) > 1000
    os.close(reader)
    log.close()
    os.close(writer)
    assert sum(dropped) > 15_000, "a pipe that nobody reads takes no more than it holds"


def test_only_the_process_whose_turn_it_is_writes(tmp_path: Path) -> None:
    turn_file = os.open(tmp_path / "turn", os.O_RDWR | os.O_CREAT)
    other = subprocess.Popen(
        [sys.executable, "-c",
         "from gateway.access_log import ProcessTurn\n"
         f"with ProcessTurn({turn_file}): print('mine', flush=True); input()"],
        pass_fds=[turn_file], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == b"mine\n"
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    log = JsonAccessLog(writer, on_drop=fail_on_drop, turn=ProcessTurn(turn_file))
    log.write(make_record(0))
    closing = threading.Thread(target=log.close)
    closing.start()
    closing.join(timeout=0.2)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    other.kill()  # one that dies lets go
    other.communicate()
    closing.join(timeout=scaled())
    assert os.read(reader, 10_000).endswith(b'"request_id":"id"}\n')
    for descriptor in (reader, writer, turn_file):
        os.close(descriptor)


def test_log_that_is_off_writes_nothing(tmp_path: Path) -> None:
    log = open_access_log("off", on_drop=fail_on_drop)
    log.write(make_record(0))
    log.flush()
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_log_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_access_log(str(tmp_path / "missing" / "a.log"), on_drop=fail_on_drop)


def test_time_stamp_is_rfc_3339_in_utc_with_milliseconds() -> None:
    now = 1_795_515_792.25
    stamps = Timestamps(lambda: now)
    assert stamps.now() == "2026-11-24T10:23:12.250Z"
    now += 0.5
    assert stamps.now() == "2026-11-24T10:23:12.750Z"
    now += 0.5
    assert stamps.now() == "2026-11-24T10:23:13.250Z"


def test_combined_format_is_what_tools_for_apache_read(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = open_access_log(str(path), style="apache_combined", on_drop=fail_on_drop)
    record = make_record(7)
    record.time, record.client = "2026-11-24T10:23:12.250Z", "192.0.2.1"
    record.protocol, record.client_id, record.bytes_out = "HTTP/1.1", "shop", 42
    record.user_agent, record.referer = "curl/8", "https://example.com/a"
    log.write(record)
    record.client_id, record.bytes_out, record.user_agent, record.referer = "", 0, "", ""
    log.write(record)
    log.close()
    assert path.read_text().splitlines() == [
        '192.0.2.1 - shop [24/Nov/2026:10:23:12 +0000] "GET /7 HTTP/1.1" 200 42 '
        '"https://example.com/a" "curl/8"',
        '192.0.2.1 - - [24/Nov/2026:10:23:12 +0000] "GET /7 HTTP/1.1" 200 - "-" "-"',
    ]


def test_no_client_can_write_a_line_of_their_own_into_the_combined_format(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = open_access_log(str(path), style="apache_combined", on_drop=fail_on_drop)
    record = make_record(7)
    record.time = "2026-11-24T10:23:12.250Z"
    record.user_agent = 'x" 200\r\n192.0.2.9 - admin \\" \x1b[2J\x7f\xe9\u2028'
    record.client_id = 'a b"\n'
    log.write(record)
    log.close()
    (line,) = path.read_bytes().splitlines()
    assert line.endswith(rb'"-" "x\" 200\x0d\x0a192.0.2.9 - admin \\\" \x1b[2J\x7f\xe9\u2028"')
    assert rb" - a\x20b\"\x0a [" in line
