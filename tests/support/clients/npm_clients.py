"""OAuth clients from npm, as their lock file names them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.deadlines import scaled

NODE = Path(__file__).parents[2] / "system" / "node"


def install_npm_clients(directory: Path, source: Path = NODE, how: str = "ci") -> Path:
    """Install the packages that the lock file in `source` names into a directory; skips the test
    where that can't be done. `how` is `install` where a registry may lack what only another
    system needs."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are missing: apt-get install nodejs npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, directory / name)
    installed = subprocess.run(
        ["npm", how, "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=directory, capture_output=True, text=True, timeout=scaled(180),
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"npm {how} failed, is the registry reachable? {installed.stderr[-300:]}")
    return directory
