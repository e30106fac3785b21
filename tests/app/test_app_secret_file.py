"""The secret that seals private keys: where it comes from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.sound_config import SOUND

from gateway.app.secret_file import read_or_make, seal_secret
from gateway.config import parse_config
from gateway.oauth.keys.sealing import Seal, SealSecretError


def test_secret_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "gateway.key"
    secret = read_or_make(path)
    assert len(secret) >= 43, "256 random bits"
    assert read_or_make(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["gateway.key"]


def test_secret_that_cannot_be_had_is_no_reason_to_go_on_without(tmp_path: Path) -> None:
    seal = Seal(lambda: read_or_make(tmp_path / "missing" / "gateway.key"))
    with pytest.raises(SealSecretError):
        seal.close(b"value", name="a")


def test_many_who_find_no_file_agree_on_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: read_or_make(tmp_path / "gateway.key"), range(32)))
    assert len(secrets) == 1


def test_secret_of_the_configuration_comes_before_that_of_a_file(tmp_path: Path) -> None:
    text = SOUND.replace("provider:", f"provider:\n  seal_key_file: {tmp_path}/gateway.key")
    assert seal_secret(parse_config(text, file="g.yaml"))() == (
        (tmp_path / "gateway.key").read_bytes().strip()
    )
    given = "x" * 32
    text = text.replace("provider:", f"provider:\n  seal_key: {given}")
    assert seal_secret(parse_config(text, file="g.yaml"))() == given.encode()
