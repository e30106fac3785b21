"""Digests and request ids of the native codec."""

from __future__ import annotations

import hashlib
import os
import re
from types import ModuleType

import pytest
from support.codec import native_codec


@pytest.fixture(scope="module")
def codec() -> ModuleType:
    return native_codec()


@pytest.mark.parametrize("is_portable", [False, True])
def test_digests_of_all_lengths_are_those_of_openssl(codec: ModuleType, is_portable: bool) -> None:
    for size in range(260):
        data = os.urandom(size)
        assert codec.sha256(data, is_portable) == hashlib.sha256(data).digest()


def test_request_ids_are_32_hexadecimal_digits_and_differ(codec: ModuleType) -> None:
    made = [codec.new_id() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(rb"[0-9a-f]{32}", one) for one in made)


def test_a_forked_process_makes_other_request_ids(codec: ModuleType) -> None:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, codec.new_id())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 32) not in {codec.new_id() for _ in range(3)}
    os.close(reading)
    os.close(writing)
