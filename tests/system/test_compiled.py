"""The wheel: what is on the hot path is compiled in it, or the tests ran on something else."""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES

import pytest
from support.tiers import slow

from gateway import codec
from gateway.downstream import h1 as client
from gateway.oauth import token_cache
from gateway.proxy import exchange
from gateway.proxy import pipeline as listener
from gateway.upstream import h1 as connection


@slow("compiled")
@pytest.mark.skipif(
    "TEST_COMPILED" not in os.environ, reason="runs on the installed wheel: make compiled"
)
def test_hot_path_is_compiled() -> None:
    for module in (client, connection, exchange, listener, token_cache):
        assert module.__file__ is not None
        assert module.__file__.endswith(tuple(EXTENSION_SUFFIXES))


@slow("compiled")
@pytest.mark.skipif(
    "TEST_COMPILED" not in os.environ, reason="runs on the installed wheel: make compiled"
)
def test_codec_is_in_use_unless_it_is_switched_off() -> None:
    assert ("GATEWAY_NO_CODEC" not in os.environ) == codec.IS_NATIVE
