"""One line per request, whatever became of it: JSON, or Apache's combined format.

Last step of the request path. A line is made on the event loop and written by a thread:
a slow disk or a full pipe must not stop the gateway, so what can't be written in time
is dropped, and counted. Query strings, bodies, credentials and tokens are never in it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from functools import lru_cache
from typing import Literal, Protocol

import msgspec

from gateway.output import FILE_FLAGS, FILE_MODE, LineWriter

MAX_PENDING_BYTES = 8 * 1024 * 1024
FLUSH_BYTES = 256 * 1024
"""What is handed to the writing thread together, where it is not handed on after a while anyway:
each time takes the event loop from its requests, since one of the two runs at a time."""


class AccessRecord(msgspec.Struct, omit_defaults=True):
    """A finished request. Fields without a value are left out of the line."""

    time: str
    """UTC, RFC 3339 with milliseconds: when the request was finished."""
    client: str
    """Address of the client, as far as `trusted_proxies` lets it be known."""
    method: str
    path: str
    """Canonical, without the query, which may hold secrets."""
    route: str
    status: int
    """As sent to the client; 499 where the client went away before."""
    source: str
    """Who made the response: `gateway` or `upstream`."""
    duration_ms: float
    request_id: str
    reason: str = ""
    """Machine-readable: why the gateway refused, or what cut the response off."""
    client_id: str = ""
    upstream: str = ""
    upstream_ms: float | None = None
    """From choosing a connection to the end of the response; absent where nothing was forwarded."""
    bytes_in: int = 0
    """Body bytes taken from the client."""
    bytes_out: int = 0
    """Body bytes given to the client."""
    grpc_status: int | None = None
    """Of a response of gRPC, whose `status` is 200 whatever became of the call."""
    protocol: str = ""
    """Such as `HTTP/2.0`; of HTTP/1 only for formats that have it."""
    api_key: str = ""
    """The id of the API key that the request was authenticated by, never its value."""
    # Only where `logs_user_agent`, for formats that have them.
    user_agent: str = ""
    referer: str = ""


class AccessLog(Protocol):
    """Writes a record of each finished request."""

    @property
    def sample(self) -> float:
        """The share of the requests without a failure that it wants."""

    @property
    def logs_user_agent(self) -> bool:
        """Whether it wants the fields of `AccessRecord` that not every format has."""

    @property
    def lines(self) -> bytearray | None:
        """The buffer that a line of JSON may be appended to in place of a record; None for other
        formats."""

    def write(self, record: AccessRecord) -> None:
        """Take one record. Never waits and never fails."""

    def flush(self) -> None:
        """Hand on what was held back to be written together."""

    def close(self) -> None:
        """Write what was taken, then let go of the file."""


class NoAccessLog:
    """`access_log: {path: off}`."""

    # Of failures there is a record all the same: it is made and dropped.
    sample = 0.0
    logs_user_agent = False
    lines = None

    def write(self, record: AccessRecord) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class ProcessTurn:
    """Held by one process at a time: a record lock on a file that several have inherited.

    A process that dies holding it lets go of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


class JsonAccessLog:
    """Lines to a file descriptor, by a thread of its own.

    Every line is JSON; `sample` is what `AccessLog` says.

    `turn` is entered to write whole lines: pipes and sockets cut what is written when they
    are full, and another process must not write into the gap.
    """

    logs_user_agent = False

    def __init__(
        self,
        descriptor: int,
        *,
        on_drop: Callable[[int], None],
        turn: AbstractContextManager[object] | None = None,
        sample: float = 1.0,
        path: str = "",
    ) -> None:
        self.sample = sample
        self._encode_into = msgspec.json.Encoder().encode_into
        self._buffer = bytearray()
        self._writer = LineWriter(
            descriptor,
            name="access-log",
            max_pending_bytes=MAX_PENDING_BYTES,
            on_drop=on_drop,
            on_trouble=_report_trouble,
            turn=turn,
            path=path,
        )

    @property
    def lines(self) -> bytearray | None:
        """The lines held back; see `AccessLog`."""
        return None if self.logs_user_agent else self._buffer

    def write(self, record: AccessRecord) -> None:
        """Take one record, or drop it where the sink has fallen too far behind."""
        buffer = self._buffer
        self._encode(record, buffer)
        buffer += b"\n"
        if len(buffer) >= FLUSH_BYTES:
            self.flush()

    def _encode(self, record: AccessRecord, buffer: bytearray) -> None:
        self._encode_into(record, buffer, -1)

    def flush(self) -> None:
        """Hand the lines held back to the writing thread."""
        if self._buffer:
            self._writer.write(bytes(self._buffer))
            self._buffer.clear()

    def close(self) -> None:
        """Write what was taken; a sink that takes nothing for 5 seconds is given up."""
        self.flush()
        self._writer.close()


def _report_trouble(reason: str) -> None:
    """Once when writing begins to fail, and once when it succeeds again."""
    log = logging.getLogger(__name__)
    if reason:
        log.error("the access log can't be written: %s; lines are dropped and counted", reason)
    else:
        log.info("the access log is written again")


class CombinedAccessLog(JsonAccessLog):
    """Apache's combined format (mod_log_config): what most tools for web logs read.

    The client id stands where the user does. What is not visible ASCII, and what could end
    a field or a line, is escaped as Apache does, so no client can write a line of its own.
    """

    logs_user_agent = True

    def _encode(self, record: AccessRecord, buffer: bytearray) -> None:
        request = f"{record.method} {record.path} {record.protocol}"
        buffer += (
            f"{record.client} - {_escape(record.client_id).replace(' ', chr(92) + 'x20') or '-'} "
            f"[{_apache_time(record.time[:19])}] "
            f'"{_escape(request)}" {record.status} {record.bytes_out or "-"} '
            f'"{_escape(record.referer) or "-"}" "{_escape(record.user_agent) or "-"}"'
        ).encode("ascii")


_ESCAPED = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100))},
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


def _escape(text: str) -> str:
    return text.translate(_ESCAPED).encode("ascii", "backslashreplace").decode("ascii")


@lru_cache(maxsize=1)
def _apache_time(second: str) -> str:
    moment = datetime.fromisoformat(second)
    return f"{moment.day:02d}/{_MONTHS[moment.month - 1]}/{moment:%Y:%H:%M:%S} +0000"


_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
"""In English, whatever the locale is."""

Style = Literal["json", "apache_combined"]


def open_access_log(
    path: str,
    *,
    style: Style = "json",
    sample: float = 1.0,
    on_drop: Callable[[int], None],
    turn: AbstractContextManager[object] | None = None,
) -> AccessLog:
    """The log for `access_log.path`: `-` for standard output, `off`, or a file to append to.

    Several processes may append to one file; `turn` is whose turn it is at standard output.
    Raises `OSError` where the file can't be opened.
    """
    if path == "off":
        return NoAccessLog()
    make = JsonAccessLog if style == "json" else CombinedAccessLog
    if path == "-":
        return make(sys.stdout.fileno(), on_drop=on_drop, turn=turn, sample=sample)
    descriptor = os.open(path, FILE_FLAGS, FILE_MODE)
    return make(descriptor, on_drop=on_drop, sample=sample, path=path)


class Timestamps:
    """RFC 3339 time stamps; the part that changes once a second is made once a second."""

    __slots__ = ("_prefix", "_second", "clock")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        """Seconds since the epoch."""
        self._second = -1
        self._prefix = ""

    def now(self) -> str:
        """The time now, UTC."""
        now = self.clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return self._prefix + _MILLISECONDS[int((now - second) * 1000)]


_MILLISECONDS = tuple(f".{count:03d}Z" for count in range(1000))
