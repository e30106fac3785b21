"""The scan for secrets, which looks at what every test leaves behind, finds what it looks for."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from joserfc.jwk import ECKey
from support.deadlines import scaled
from support.running_gateway import RunningGateway
from support.secrets_scan import SEEN, SecretsSeen
from support.tiers import slow

from gateway.oauth.credentials import random_text

ROOT = Path(__file__).parents[1]
SECRET = "canary-4711-of-the-scan"
KEY = ECKey.generate_key("P-256")
JWK = json.dumps(KEY.as_dict(private=True))


@pytest.mark.parametrize(
    "written",
    [
        SECRET.encode(),
        b"\0\1\2" + SECRET.encode() + b"\n",
        b"name=value&code=" + SECRET.encode() + b"&more",
        *(base64.b64encode(b"c" * ahead + b":" + SECRET.encode()) for ahead in range(3)),
    ],
)
def test_scan_finds_a_secret_in_clear_and_in_basic_credentials(written: bytes) -> None:
    seen = SecretsSeen()
    seen.add(SECRET, "a kind")
    (leak,) = seen.find(b"before " + written + b" behind", "here")
    assert (leak.where, leak.kind) == ("here", "a kind")
    assert leak.offset >= len("before ")
    assert SECRET not in repr(leak)


def test_scan_finds_phrases() -> None:
    seen = SecretsSeen()
    seen.add("correct horse battery", "password")
    (leak,) = seen.find(b"he said correct horse battery and left", "here")
    assert (leak.kind, leak.offset) == ("password", len("he said "))


@pytest.mark.parametrize("written", [KEY.as_pem(private=True), JWK.encode(), json.dumps(JWK)])
def test_scan_finds_private_keys_that_it_was_not_given(written: bytes | str) -> None:
    data = written.encode() if isinstance(written, str) else written
    (leak,) = SecretsSeen().find(b"before " + data, "here")
    assert leak.kind == "private key"
    assert not [*SecretsSeen().find(KEY.as_pem(private=False), "here")]
    assert not [*SecretsSeen().find(json.dumps(KEY.as_dict(private=False)).encode(), "here")]


def test_scan_lets_digests_and_words_be() -> None:
    seen = SecretsSeen()
    seen.add(SECRET, "a kind")
    seen.add("secret", "a kind")
    assert not [*seen.find(b"secret", "here"), *seen.find(gzip.compress(SECRET.encode()), "here")]


@pytest.mark.parametrize(
    "name", ["access.log", "gateway.db", "gateway.db-wal", "a/b/dump.rdb", "redis-6379/log"]
)
def test_scan_reads_logs_and_databases_wherever_they_are(tmp_path: Path, name: str) -> None:
    seen = SecretsSeen({"a-constant-secret": "a kind"})
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 5000 + b" a-constant-secret")
    (leak,) = seen.find_below(tmp_path)
    assert (leak.where, leak.offset) == (str(path), 5001)


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
    for secret, kind in (
        ("a secret of the shop", "client_secret"),
        (token, "access_token"),
        (drawn, "random text"),
    ):
        (leak,) = SEEN.find(secret.encode(), "here")
        assert leak.kind == kind
    assert not [*SEEN.find(random_text(16).encode(), "here")]


@pytest.mark.parametrize("post", [httpx.post, requests.post])
async def test_scan_knows_the_secrets_that_clients_show_to_any_server(
    gateway: RunningGateway, post: Callable[..., Any]
) -> None:
    basic = base64.b64encode(b"shop:a+secret+in+Basic").decode()
    for request in (
        {"headers": {"Authorization": f"Basic {basic}"}, "data": {"code": "a code in a form"}},
        {"headers": {"Authorization": "Bearer a-token-in-a-header"}},
        {"headers": {"client_secret": "a secret in a header"}},
        {"json": {"password": "a password in JSON"}},
    ):
        await asyncio.to_thread(post, str(gateway.url("/token")), **request)
    for secret, kind in (
        ("a secret in Basic", "client secret or password"),
        ("a code in a form", "code"),
        ("a-token-in-a-header", "bearer token"),
        ("a secret in a header", "client_secret"),
        ("a password in JSON", "password"),
    ):
        (leak,) = SEEN.find(secret.encode(), "here")
        assert leak.kind == kind


@slow("pytest")
def test_test_that_leaves_a_secret_behind_fails(tmp_path: Path) -> None:
    reported = run_tests(
        tmp_path,
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
        "    (tmp_path / 'stderr.log').write_text('token ' + random_text(16))\n",
    )
    # The last one by what the first two left.
    assert "5 passed, 5 errors" in reported, reported
    for place in (
        "stderr.log', kind='random text', offset=6",
        "gateway.db', kind='random text', offset=6",
        "where='stderr'",
        "where='log'",
    ):
        assert place in reported, reported


@slow("pytest")
def test_fixture_that_leaves_a_secret_behind_fails_the_run(tmp_path: Path) -> None:
    reported = run_tests(
        tmp_path,
        "import pytest\n"
        "from support.secrets_scan import SEEN\n"
        "@pytest.fixture(scope='session')\n"
        "def shared(tmp_path_factory):\n"
        "    SEEN.add('the-secret-of-a-fixture', 'refresh_token')\n"
        "    yield\n"
        "    path = tmp_path_factory.mktemp('shared') / 'gateway.log'\n"
        "    path.write_text('token the-secret-of-a-fixture')\n"
        "def test_first(shared):\n"
        "    pass\n"
        "def test_last():\n"
        "    pass\n",
    )
    assert "2 passed, 1 error" in reported, reported
    assert "gateway.log', kind='refresh_token', offset=6" in reported, reported


@slow("pytest")
def test_secret_that_was_ever_in_a_redis_is_found(tmp_path: Path) -> None:
    reported = run_tests(
        tmp_path,
        "import pytest\n"
        "from support.processes.redis import RedisServer\n"
        "from support.secrets_scan import SEEN\n"
        "def leak(directory, is_durable):\n"
        "    SEEN.add('the-secret-in-a-redis', 'client_secret')\n"
        "    server = RedisServer(directory, is_durable=is_durable).start()\n"
        "    server.fetch('SET', 'client:shop', 'the-secret-in-a-redis ' * 9)\n"
        "    if not is_durable:\n"
        "        server.control.flushall()\n"
        "    server.kill()\n"
        "    server.start()\n"
        "    assert len(server.all_keys()) == is_durable\n"
        "    server.stop()\n"
        "@pytest.mark.parametrize('is_durable', [False, True])\n"
        "def test_own(tmp_path, is_durable):\n"
        "    leak(tmp_path, is_durable)\n"
        "def test_shared(tmp_path_factory):\n"
        "    leak(tmp_path_factory.mktemp('shared'), False)\n",
    )
    # The last one's was in a directory that is looked at when all have ended.
    assert "3 passed, 3 errors" in reported, reported
    for place in ("test_own_False_0", "test_own_True_0", "shared0"):
        assert re.search(rf"/{place}/redis-\d+/\S+\.aof', kind='client_secret'", reported), reported


def run_tests(directory: Path, text: str) -> str:
    """What pytest says to a file of tests."""
    file = directory / "test_leak.py"
    file.write_text(text)
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "support.secrets_scan", "-p", "no:cacheprovider",
         "-q", "--rootdir", str(directory), "-c", os.devnull, str(file)],
        env=os.environ | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, timeout=scaled(60),
    )  # fmt: skip
    return run.stdout + run.stderr
