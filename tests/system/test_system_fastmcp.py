"""fastmcp, a client that many agents use, in an environment of its own, and config/mcp.yaml."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from support.deadlines import scaled
from support.processes.mcp import mcp_gateway, mcp_server
from support.tiers import slow

pytestmark = pytest.mark.system

HERE = Path(__file__).parent / "fastmcp"
TESTS = Path(__file__).parents[1]


def install(directory: Path) -> Path:
    """Make an environment with what the lock file names; gives its Python."""
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:",
         "-r", HERE / "requirements.lock"],
        capture_output=True, text=True, timeout=scaled(180),
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"pip install failed, is the package index reachable? {done.stderr[-300:]}")
    return python


@slow("SDK")
def test_fastmcp_registers_signs_in_and_steps_up(tmp_path: Path) -> None:
    python = install(tmp_path / "environment")
    asked = tmp_path / "asked"
    with mcp_server() as server, mcp_gateway(tmp_path, server) as gateway:
        done = subprocess.run(
            [python, HERE / "client.py"],
            capture_output=True, text=True, timeout=scaled(60), cwd=tmp_path,
            env=os.environ | {
                "SERVER": f"{gateway.url}/mcp", "HOME": str(tmp_path),
                "BROWSER": f"{sys.executable} {HERE / 'browser.py'} %s {asked} &",
                "PYTHONPATH": str(TESTS),
            },
        )  # fmt: skip
    assert done.stdout.splitlines() == [
        "admin_reset get_weather", "It rains in Bern, alice.", "All stations are forgotten.",
    ], done.stderr  # fmt: skip
    assert [set(scopes.split()) for scopes in asked.read_text().splitlines()] == [
        {"mcp"}, {"mcp", "weather:read"}, {"mcp", "weather:read", "admin"},
    ]  # fmt: skip
