"""The log of the gateway's processes: text, or one JSON object a message."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import wait_until
from support.processes.gateway import GatewayProcess
from support.servers.raw_upstream import thread_upstream

from gateway.app.logs import JsonFormatter, StderrHandler, set_log_format


def lines_of(gateway: GatewayProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.errors().splitlines()]


def record(message: str, **values: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": message, "name": "a.b", "levelname": "ERROR"} | values)


def test_message_is_one_json_object_whatever_is_in_it() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        failure = sys.exc_info()
    text = JsonFormatter("worker 1").format(
        record('a\n"b"\u2028\udcff %s', args=("c\r",), exc_info=failure)
    )
    assert "\n" not in text
    assert text.isascii()
    said = json.loads(text)
    assert said["message"] == 'a\n"b"\u2028\udcff c\r'
    assert (said["level"], said["logger"], said["process"]) == ("ERROR", "a.b", "worker 1")
    assert said["exception"].endswith("ValueError: two\nlines")
    assert datetime.fromisoformat(said["time"]).tzname() == "UTC"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_times_are_utc_and_say_so_wherever_the_host_is(
    monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    handler = StderrHandler()
    logging.getLogger().addHandler(handler)
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        set_log_format(log_format)
        line = handler.format(record("x", created=1_795_875_058.25, msecs=250.0))
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        monkeypatch.undo()
        time.tzset()
    assert "2026-11-28T14:10:58.250Z" in line


def test_format_changes_for_what_comes_next() -> None:
    handler = StderrHandler(speaker="worker 2")
    logging.getLogger().addHandler(handler)
    try:
        set_log_format("json")
        assert json.loads(handler.format(record("x")))["process"] == "worker 2"
        set_log_format("text")
        assert handler.format(record("x")).endswith("ERROR a.b [worker 2]: x")
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def test_rejected_reload_is_one_record_of_each_process(tmp_path: Path) -> None:
    with thread_upstream() as upstream:
        gateway = GatewayProcess(tmp_path, upstream.url, workers=2, log={"format": "json"})
        gateway.start()
        try:
            gateway.config.write_text("nonsense: 1\nroutes: 2\nlisten: 3\n")
            wait_until(lambda: "rejected" in gateway.errors(), what=gateway.errors)
        finally:
            assert gateway.stop() == 0
    said = lines_of(gateway)
    (rejected,) = [one for one in said if "rejected" in one["message"]]
    assert "nonsense" in rejected["message"]
    assert "listen" in rejected["message"]
    assert said[-1]["message"] == "stopped"
