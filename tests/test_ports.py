"""Ports that one process was given are given to no other one, for as long as it lives."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from examples import ports
from examples.ports import BLOCKS, RANGE, free_block, free_port

ASK = "from examples.ports import *; print(free_block(), *(free_port() for _ in range(50)))"


def test_processes_are_given_different_ports() -> None:
    mine = {free_block(), *(free_port() for _ in range(50))}
    theirs = subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True).stdout
    assert len(mine) == len(set(theirs.split())) == 51
    assert mine.isdisjoint(map(int, theirs.split()))


def test_block_is_apart_from_single_ports() -> None:
    assert not set(RANGE) & set(range(BLOCKS.start, BLOCKS.stop))


def test_block_in_which_a_server_listens_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(ports, "BLOCKS", range(taken - 5, taken + 5, 10))
        with pytest.raises(OSError, match="no 10 ports from"):
            free_block()
