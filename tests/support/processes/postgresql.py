"""PostgreSQL servers of the tests' own: started, stopped, killed and paused at will."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest
from support.deadlines import scaled, wait_until

from examples.ports import free_port

HOW_TO_INSTALL = "PostgreSQL is missing: apt-get install postgresql"
PASSWORD = "pg-test-password"


def find_programs() -> Path | None:
    """The directory of `initdb` and `postgres`: newest version first, where Debian puts them."""
    for place in sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True):
        if Path(place, "postgres").exists():
            return Path(place)
    found = shutil.which("postgres")
    return Path(found).parent if found else None


def programs_or_skip() -> Path:
    """As `find_programs`; skips the test without them."""
    found = find_programs()
    if found is None:
        pytest.skip(HOW_TO_INSTALL)
    return found


class PostgresServer:
    """One server with its data. It refuses to run as root, so then it is another user's."""

    def __init__(self, directory: Path) -> None:
        self._programs = programs_or_skip()
        self._directory = directory
        self.port = free_port()
        self.url = self.url_as("gateway", PASSWORD)
        self._process: subprocess.Popen[bytes] | None = None
        self._run_as: dict[str, object] = {}
        if os.geteuid() == 0:
            # Not in there, where nobody but root may look.
            self._directory = Path(tempfile.mkdtemp(prefix="gateway-postgresql-"))
            user = pwd.getpwnam("postgres")
            os.chown(self._directory, user.pw_uid, user.pw_gid)
            self._run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._data = self._directory / "data"

    def url_as(self, user: str, password: str, database: str = "gateway") -> str:
        """The URL of a database, for a user."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def create(self, *options: str) -> PostgresServer:
        """Make the data: the role `gateway`, and a database of its own."""
        secret = self._directory / "password"
        secret.write_text(PASSWORD)
        self.call(
            "initdb", "--pgdata", str(self._data), "--username", "gateway",
            "--auth", "scram-sha-256", "--pwfile", str(secret),
            "--encoding", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip
        with (self._data / "postgresql.conf").open("a") as config:
            config.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n"
                f"unix_socket_directories = '{self._directory}'\nmax_connections = 200\n"
                "shared_buffers = 16MB\ndynamic_shared_memory_type = mmap\nautovacuum = off\n"
            )
            config.writelines(f"{option}\n" for option in options)
        return self

    def call(self, program: str, *arguments: str) -> str:
        """Run one of its programs, and return what it prints."""
        finished = subprocess.run(
            [str(self._programs / program), *arguments],
            capture_output=True, text=True, timeout=scaled(60),
            cwd="/", env={**os.environ, "PGPASSWORD": PASSWORD, "LC_ALL": "C"}, **self._run_as,
        )  # type: ignore[call-overload]  # fmt: skip
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return str(finished.stdout)

    def sql(self, statement: str, database: str = "gateway") -> str:
        """Run a statement as the superuser, and return what it selects."""
        return self.call(
            "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "gateway", "-d", database,
            "-v", "ON_ERROR_STOP=1", "-qtAc", statement,
        ).strip()  # fmt: skip

    def start(self) -> PostgresServer:
        """Start, and wait until it takes connections."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data)],
                stdout=log, stderr=log, cwd="/", **self._run_as,
            )  # type: ignore[call-overload]  # fmt: skip
        wait_until(self._is_up)
        if not self.sql("SELECT 1 FROM pg_database WHERE datname = 'gateway'", "postgres"):
            self.sql("CREATE DATABASE gateway", "postgres")
        return self

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "log").read_text()[-2000:]
        ready = subprocess.run(
            [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        )
        return ready.returncode == 0

    def empty(self) -> None:
        """Remove everything that a gateway has made."""
        self.sql("DROP SCHEMA IF EXISTS gateway CASCADE")

    def stop(self) -> None:
        """End it at once, in order, paused or not (a fast shutdown)."""
        self._signal_all(signal.SIGCONT)
        self._end(signal.SIGINT)
        if self._run_as:
            shutil.rmtree(self._directory)

    def kill(self) -> None:
        """Kill -9, with all that serve connections."""
        self._signal_all(signal.SIGKILL)
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(timeout=scaled())

    def pause(self) -> None:
        """Let it respond to nobody, while the kernel still takes connections and data."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """The reverse of `pause`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        root = psutil.Process(self._process.pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
