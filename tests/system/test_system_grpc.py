"""grpc.md, as it is written: a server, a gateway before it, and calls, each a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.deadlines import scaled, wait_until
from support.tiers import slow

from examples.ports import free_port

pytest.importorskip("grpc", reason="grpcio is not installed")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "grpc.md").read_text()
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def server_port() -> Iterator[int]:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "examples.grpc_demo", "serve"],
        cwd=ROOT, env=ENVIRONMENT | {"GRPC_PORT": str(port)}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert "listens on" in process.stdout.readline()
        yield port
        process.terminate()


@pytest.fixture
def configured(tmp_path: Path, server_port: int) -> Iterator[tuple[Path, int]]:
    """The gateway of the page, on another port; its configuration, and that port."""
    port, admin_port = free_port(), free_port()
    text = (ROOT / "config" / "grpc.yaml").read_text()
    text = text.replace("8080", str(port)).replace("50051", str(server_port))
    text = text.replace("sqlite:///./", f"sqlite:///{tmp_path}/")
    path = tmp_path / "grpc.yaml"
    path.write_text(f"{text}\nadmin: {{host: 127.0.0.1, port: {admin_port}}}\n")
    with (
        (tmp_path / "gateway.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "gateway", "run", "-c", str(path)],
            env=ENVIRONMENT, stdout=log, stderr=log,
        ) as process,
    ):  # fmt: skip

        def is_ready() -> bool:
            assert process.poll() is None, (tmp_path / "gateway.log").read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{admin_port}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_ready)
        yield path, port
        process.terminate()


@slow("tutorials")
def test_walk_through_ends_in_a_call(configured: tuple[Path, int]) -> None:
    path, port = configured
    blocks = re.findall(r"(?:^ {4}\S.*\n)+", PAGE, re.MULTILINE)
    lines = [line.strip() for block in blocks[1:3] for line in block.splitlines()]
    assert len(lines) == 5
    script = "\n".join(lines).replace("config/grpc.yaml", str(path))
    script = script.replace("gateway ", f"{sys.executable} -m gateway ")
    script = script.replace("python -m examples", f"{sys.executable} -m examples")
    script = script.replace(" call", f" call --timeout {scaled(20)} --target 127.0.0.1:{port}")
    shown = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
        timeout=scaled(120), check=False,
    ).stdout  # fmt: skip
    [promised] = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    assert promised in shown
    assert re.findall(r"^Status: (.*)$", shown, re.MULTILINE) == [
        "OK", "UNAUTHENTICATED", "PERMISSION_DENIED",
    ]  # fmt: skip
