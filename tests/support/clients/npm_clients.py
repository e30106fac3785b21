"""OAuth clients from npm, as their lock file names them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.deadlines import scaled

NODE = Path(__file__).parents[2] / "system" / "node"


def install_npm_clients(directory: Path) -> Path:
    """Install them into a directory; skips the test where that can't be done."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are missing: apt-get install nodejs npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, directory / name)
    installed = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=directory, capture_output=True, text=True, timeout=scaled(180),
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"npm ci failed, is the registry reachable? {installed.stderr[-300:]}")
    return directory
