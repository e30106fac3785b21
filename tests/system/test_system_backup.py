"""The backup that docs/operations.md describes, made while a gateway runs, and restored."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import httpx
import pytest
from support.deadlines import scaled
from support.processes.gateway import gateway_process

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]


def test_backup_of_a_running_gateway_serves_its_clients_and_tokens(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (command,) = re.findall(r"^    (python3 -c .*VACUUM.*)$", text, re.MULTILINE)
    with gateway_process(tmp_path, "http://127.0.0.1:9") as gateway:
        gateway.create_client()
        token = gateway.get_token()
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, timeout=scaled(30))
    restored = tmp_path / "restored"
    restored.mkdir()
    (tmp_path / "backup.db").rename(restored / "gateway.db")
    with gateway_process(restored, "http://127.0.0.1:9") as gateway:
        headers = {"Authorization": f"Bearer {token}"}
        response = httpx.get(f"{gateway.url}/validate", headers=headers)
        assert response.json()["client_id"] == "shop"
        assert gateway.get_token() != token
