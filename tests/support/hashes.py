"""Makes hashes of secrets cheap in the process of the tests.

A hash takes 25 ms of a core, by a thread of the lowest priority; tests that register a client and
have it get a token need two. How much work one has to be is tested by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.oauth.credentials import SecretHasher

_CHEAP = {"memory_kib": 8, "iterations": 1}
_parameters = SecretHasher.__init__.__kwdefaults__ or {}
_REAL = {name: _parameters[name] for name in _CHEAP}


def make_hashes_cheap() -> None:
    """Hash with the least that argon2id knows, from now on."""
    _parameters.update(_CHEAP)


@pytest.fixture
def real_hashes() -> Iterator[None]:
    """As much work as in production."""
    _parameters.update(_REAL)
    yield
    make_hashes_cheap()
