"""The scan for secrets, which looks at what every test leaves behind, finds what it looks for."""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running_gateway import RunningGateway
from secrets_scan import SEEN, SecretsSeen

from gateway.oauth.credentials import random_text

ROOT = Path(__file__).parents[1]
SECRET = "canary-4711-of-the-scan"


@pytest.mark.parametrize(
    "written",
    [
        SECRET.encode(),
        b"\0\1\2" + SECRET.encode() + b"\n",
        *(base64.b64encode(b"c" * ahead + b":" + SECRET.encode()) for ahead in range(3)),
    ],
)
def test_scan_finds_a_secret_in_clear_and_in_basic_credentials(written: bytes) -> None:
    seen = SecretsSeen()
    seen.add(SECRET)
    (leak,) = seen.find(b"before " + written + b" behind", "here")
    assert leak.where == "here"
    assert leak.offset >= len("before ")
    assert SECRET not in repr(leak)


def test_scan_lets_digests_and_words_be() -> None:
    seen = SecretsSeen()
    seen.add(SECRET)
    seen.add("secret")
    assert not [*seen.find(b"secret", "here"), *seen.find(gzip.compress(SECRET.encode()), "here")]


@pytest.mark.parametrize("name", ["access.log", "gateway.db", "gateway.db-wal", "a/b/dump.rdb"])
def test_scan_reads_logs_and_databases_wherever_they_are(tmp_path: Path, name: str) -> None:
    seen = SecretsSeen(["a-constant-secret"])
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 5000 + b"a-constant-secret")
    (leak,) = seen.find_below(tmp_path)
    assert (leak.where, leak.offset) == (str(path), 5000)


async def test_scan_knows_the_secrets_that_the_gateway_hands_out(gateway: RunningGateway) -> None:
    await gateway.create_client("shop", client_secret="a secret of the shop")
    async with gateway.session.post(
        gateway.url("/token"),
        data={
            "grant_type": "client_credentials",
            "client_id": "shop",
            "client_secret": "a secret of the shop",
        },
    ) as response:
        token = (await response.json())["access_token"]
    drawn = random_text(32)
    for secret in ("a secret of the shop", token, drawn):
        assert [*SEEN.find(secret.encode(), "here")], secret
    assert not [*SEEN.find(random_text(16).encode(), "here")]


def test_test_that_leaves_a_secret_behind_fails(tmp_path: Path) -> None:
    (tmp_path / "test_leak.py").write_text(
        "import logging, sys\n"
        "from gateway.oauth.credentials import random_text\n"
        "def test_log(tmp_path):\n"
        "    (tmp_path / 'stderr.log').write_text('token ' + random_text(32))\n"
        "def test_database(tmp_path):\n"
        "    (tmp_path / 'gateway.db').write_text('token ' + random_text(32))\n"
        "def test_standard_error():\n"
        "    print(random_text(32), file=sys.stderr)\n"
        "def test_logger():\n"
        "    logging.getLogger('gateway').warning(random_text(32))\n"
        "def test_none(tmp_path):\n"
        "    (tmp_path / 'stderr.log').write_text('token ' + random_text(16))\n"
    )
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "secrets_scan", "-p", "no:cacheprovider", "-q",
         "--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path / "test_leak.py")],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "5 passed, 4 errors" in run.stdout, run.stdout + run.stderr
    for place in (
        "stderr.log', offset=6",
        "gateway.db', offset=6",
        "where='stderr'",
        "where='log'",
    ):
        assert place in run.stdout, run.stdout
