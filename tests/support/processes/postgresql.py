"""PostgreSQL servers of the tests' own: started, stopped, killed and paused at will."""

from __future__ import annotations

import glob
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest
from support.deadlines import scaled, wait_until
from support.jose_values import Certificate

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
        self.port = free_port()
        self.url = self.url_as("gateway", PASSWORD)
        self._process: subprocess.Popen[bytes] | None = None
        self._run_as: dict[str, object] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._directory = self.make_directory(directory)
        self._data = self._directory / "data"

    def make_directory(self, directory: Path) -> Path:
        """Make another in its place where the user that servers run as may not look into it."""
        if not self._run_as:
            return directory
        made = Path(tempfile.mkdtemp(prefix="gateway-postgresql-"))
        shutil.chown(made, self._run_as["user"], self._run_as["group"])  # type: ignore[call-overload]
        return made

    def popen(self, command: list[str], log: BinaryIO) -> subprocess.Popen[bytes]:
        """Start a server as that user."""
        return subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._run_as)  # type: ignore[call-overload,no-any-return]

    def url_as(self, user: str, password: str, database: str = "gateway") -> str:
        """The URL of a database, for a user."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def create(self, *options: str, certificate: Certificate | None = None) -> PostgresServer:
        """Make the data: the role `gateway`, and a database of its own. With a certificate, it
        takes connections by TLS only."""
        secret = self._directory / "password"
        secret.write_text(PASSWORD)
        self.call(
            "initdb", "--pgdata", str(self._data), "--username", "gateway",
            "--auth", "scram-sha-256", "--pwfile", str(secret),
            "--encoding", "UTF8", "--locale", "C", "--no-sync", "--wal-segsize", "1",
        )  # fmt: skip
        self._configure(
            "listen_addresses = '127.0.0.1'", "max_connections = 200", "shared_buffers = 16MB",
            "dynamic_shared_memory_type = mmap", "autovacuum = off", *options,
        )  # fmt: skip
        if certificate is not None:
            self._use_tls(certificate)
        return self

    def _use_tls(self, certificate: Certificate) -> None:
        for name, source in (("server.crt", certificate.cert), ("server.key", certificate.key)):
            copy = self._data / name
            copy.write_bytes(source.read_bytes())
            copy.chmod(0o600)
            if self._run_as:
                shutil.chown(copy, self._run_as["user"], self._run_as["group"])  # type: ignore[call-overload]
        hosts = self._data / "pg_hba.conf"
        hosts.write_text(
            "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        )
        self._configure("ssl = on", "listen_addresses = '127.0.0.1,127.0.0.2'")

    def copy(self, primary: PostgresServer) -> PostgresServer:
        """Make the data: a copy of another server's, which follows it as a standby."""
        self.call(
            "pg_basebackup", "--pgdata", str(self._data), "--checkpoint", "fast", "--no-sync",
            "--write-recovery-conf", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "gateway",
        )  # fmt: skip
        self._configure()
        return self

    def _configure(self, *options: str) -> None:
        """Append to its configuration; of several lines for a setting, the last one counts."""
        with (self._data / "postgresql.conf").open("a") as config:
            places = (f"port = {self.port}", f"unix_socket_directories = '{self._directory}'")
            config.writelines(f"{option}\n" for option in (*places, *options))

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
            "psql", "-h", str(self._directory), "-p", str(self.port), "-U", "gateway",
            "-d", database, "-v", "ON_ERROR_STOP=1", "-qtAc", statement,
        ).strip()  # fmt: skip

    def start(self) -> PostgresServer:
        """Start, and wait until it takes connections."""
        with (self._directory / "log").open("ab") as log:
            command = [str(self._programs / "postgres"), "-D", str(self._data)]
            self._process = self.popen(command, log)
        wait_until(self._is_up)
        is_there = self.sql("SELECT 1 FROM pg_database WHERE datname = 'gateway'", "postgres")
        if not is_there and not (self._data / "standby.signal").exists():
            self.sql("CREATE DATABASE gateway", "postgres")
        return self

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "log").read_text()[-2000:]
        ready = subprocess.run(
            [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        )
        return ready.returncode == 0

    def promote(self) -> None:
        """Make a primary of a standby."""
        self.call("pg_ctl", "promote", "--pgdata", str(self._data))

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

    def limit_files(self, size: int) -> None:
        """Let no file of it grow above so many bytes, from here on: it takes that for a full disk
        (it ignores SIGXFSZ)."""
        limit = "unlimited" if size == resource.RLIM_INFINITY else str(size)
        for process in self._processes():
            # As that user: even root may be forbidden to do it to others.
            ran = subprocess.run(
                ["prlimit", "--pid", str(process.pid), f"--fsize={limit}:"], **self._run_as
            )  # type: ignore[call-overload]
            assert ran.returncode == 0 or not process.is_running()

    def _signal_all(self, number: int) -> None:
        for process in self._processes():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def _processes(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]


class PgBouncer:
    """A PgBouncer in transaction mode, with few connections to its server."""

    POOL = 2

    def __init__(self, directory: Path, server: PostgresServer) -> None:
        program = shutil.which("pgbouncer")
        if program is None:
            pytest.skip("PgBouncer is missing: apt-get install pgbouncer")
        self._program = program
        self._server = server
        self._directory = server.make_directory(directory)
        self.port = free_port()
        self.url = f"{server.url.replace(f':{server.port}', f':{self.port}')}?pgbouncer=true"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> PgBouncer:
        """Start, and wait until it takes connections."""
        users = self._directory / "users"
        users.write_text(f'"gateway" "{PASSWORD}"\n')
        config = self._directory / "pgbouncer.ini"
        config.write_text(
            "[databases]\n"
            f"gateway = host=127.0.0.1 port={self._server.port} pool_size={self.POOL}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = transaction\n"
            "max_client_conn = 200\nserver_login_retry = 0.1\n"
        )
        with (self._directory / "log").open("ab") as log:
            self._process = self._server.popen([self._program, str(config)], log)
        wait_until(self._is_up)
        return self

    def _is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=scaled())
        shutil.rmtree(self._directory)
