"""Logging of a gateway's processes to standard error."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from gateway.output import LineWriter

MAX_PENDING_BYTES = 1024 * 1024
CLOSE_S = 1.0
"""How long the last lines may take when the process ends."""


def set_up_logging(speaker: str = "") -> None:
    """Write log lines; `speaker` names the process, where there are several."""
    if logging.getLogger().handlers:
        return
    handler = StderrHandler(speaker=speaker)
    handler.setFormatter(text_formatter(speaker))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def set_log_format(log_format: str) -> None:
    """Write `text` or `json` from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, StderrHandler):
            make = JsonFormatter if log_format == "json" else text_formatter
            handler.setFormatter(make(handler.speaker))


def text_formatter(speaker: str) -> logging.Formatter:
    """Make the formatter of lines of text. A traceback is several lines."""
    who = f" [{speaker}]" if speaker else ""
    formatter = logging.Formatter(f"%(asctime)s %(levelname)s %(name)s{who}: %(message)s")
    _use_utc(formatter)
    return formatter


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of a record, on one line."""

    def __init__(self, speaker: str) -> None:
        super().__init__()
        self._speaker = speaker
        _use_utc(self)

    def format(self, record: logging.LogRecord) -> str:
        values = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._speaker:
            values["process"] = self._speaker
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values)


def _use_utc(formatter: logging.Formatter) -> None:
    """Have times be as in the access log."""
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"


class StderrHandler(logging.Handler):
    """Writes to standard error, without waiting for its reader."""

    def __init__(self, descriptor: int = 2, *, speaker: str = "") -> None:
        super().__init__()
        self.speaker = speaker
        self._writer = LineWriter(
            descriptor, name="log", max_pending_bytes=MAX_PENDING_BYTES, on_drop=_count_dropped
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record, or drop it."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._writer.write(line.encode("utf-8", "backslashreplace") + b"\n")

    def close(self) -> None:
        """Write what was taken, if it can be written."""
        self._writer.close(timeout_s=CLOSE_S)
        super().close()


def _count_dropped(lines: int) -> None:
    for counter in _counters:
        counter(lines)


_counters: list[Callable[[int], None]] = []


def count_dropped_lines(counter: Callable[[int], None]) -> None:
    """Have `counter` take the number of log lines that are lost from now on."""
    _counters.append(counter)


class OwnLogLevel:
    """The log level of this process, and of others that are notified by `announce`."""

    def __init__(self, announce: Callable[[str], None] = lambda level: None) -> None:
        self._announce = announce

    def get(self) -> str:
        """The level's name."""
        return logging.getLevelName(logging.getLogger().level)

    def set(self, level: str) -> None:
        """Say as much as `level` asks for, from now on."""
        logging.getLogger().setLevel(level)
        logging.getLogger(__name__).warning("the log level is %s", level)
        self._announce(level)

    def toggle(self) -> None:
        """Between DEBUG and INFO: for SIGUSR1."""
        self.set("INFO" if self.get() == "DEBUG" else "DEBUG")
