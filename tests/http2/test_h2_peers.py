"""Upstreams of HTTP/2 that others have written: nghttpd and nginx, each a process."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.deadlines import until
from support.running_gateway import StartGateway

from examples.ports import free_port

NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {directory}/body;
  server {{ listen 127.0.0.1:{port} http2; root {directory}; keepalive_requests 3; }}
}}
"""


@contextmanager
def running(*command: str) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def peer(name: str, directory: Path) -> Iterator[str]:
    program = shutil.which(name, path=f"{Path('/usr/sbin')}:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{name} is not installed")
    port = free_port()
    if name == "nginx":
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(directory=directory, port=port))
        command = [program, "-c", str(config), "-e", f"{directory}/start.log"]
    else:
        command = [program, "--no-tls", "-a", "127.0.0.1", "-d", str(directory), str(port)]
    with running(*command):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("name", ["nghttpd", "nginx"])
async def test_files_of_all_sizes_come_whole(
    start: StartGateway, tmp_path: Path, name: str
) -> None:
    """nginx says GOAWAY after each third request: none may be lost by that."""
    root = tmp_path / "files"
    (root / "public").mkdir(parents=True)
    tmp_path.chmod(0o755)
    files = {f"f{size}": b"x" * size for size in (0, 1, 16_384, 65_535, 1_000_000)}
    for file, content in files.items():
        (root / "public" / file).write_bytes(content)
    with peer(name, root) as url:
        gateway = await start("", upstreams={"main": {"targets": [url], "protocol": "http2"}})

        async def is_up() -> bool:
            async with gateway.session.get(gateway.url("/public/f1")) as response:
                return response.status == 200

        await until(is_up)
        for _ in range(3):
            for file, content in files.items():
                async with gateway.session.get(gateway.url(f"/public/{file}")) as response:
                    assert response.status == 200
                    assert await response.read() == content
        async with gateway.session.get(gateway.url("/public/none")) as response:
            assert response.status == 404
