"""Tokens written into the store are as good as those that the gateway issues."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiers import slow

from bench.processes import BenchError
from bench.subjects import Site
from bench.tokens import CLIENT_ID, copy_clients, copy_token, make_store


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, 1, 2, "127.0.0.1:3", "127.0.0.1:4", tmp_path / "bench.db")


def inspect(site: Site, token: str) -> subprocess.CompletedProcess[str]:
    config = str(site.directory / "gateway.yaml")
    return subprocess.run(
        [sys.executable, "-m", "gateway", "token", "inspect", "-", "-c", config],
        input=token,
        capture_output=True,
        text=True,
    )


@slow("bench")
def test_every_kind_of_token_in_the_store_is_valid(site: Site) -> None:
    store = make_store(site, 50)
    tokens = store.read_tokens(1000)
    assert len(tokens) == len({*tokens, store.token}) - 1 == 49
    assert store.read_tokens(3) == tokens[:3]
    reported = []
    for token in (store.token, tokens[0], tokens[-1]):
        done = inspect(site, token)
        assert done.returncode == 0, done.stderr
        assert CLIENT_ID in done.stdout
        reported.append(re.sub(r"expires_in\D+\d+", "", done.stdout))
    assert len(set(reported)) == 1
    assert inspect(site, "x" * 43).returncode == 1


def test_store_that_keeps_tokens_otherwise_is_reported(site: Site) -> None:
    store = make_store(site, 2)
    with pytest.raises(BenchError, match="could not be written"):
        copy_token(store.path, store.token, store.read_tokens(1))  # it is there already


@slow("bench")
def test_each_copy_of_a_client_has_a_valid_token(site: Site) -> None:
    store = make_store(site, 1)
    tokens = copy_clients(store.path, store.token, 3)
    for number, token in enumerate(tokens):
        done = inspect(site, token)
        assert done.returncode == 0, done.stderr
        assert f"{CLIENT_ID}-{number}" in done.stdout
