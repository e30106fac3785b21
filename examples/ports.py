"""Ports for servers that a demo, a test, the soak or the bench starts as processes of their own."""

from __future__ import annotations

import fcntl
import functools
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

RANGE = range(20_000, 32_000)
"""Below the ports that kernels give to outgoing connections and to servers that ask for any (from
32768 on Linux, 49152 elsewhere): one of those can be taken between our look and the server's."""

BLOCKS = range(10_000, 18_000, 1_000)
"""Where blocks begin: apart from `RANGE`, of which any port may be taken."""


def free_port(*, and_above: int = 0) -> int:
    """A port on which no server listens, reserved until this process ends, with the one that is
    `and_above` by so many.

    Others that ask here, at the same time or later, get other ones: each is locked, as a byte of
    one file. Raises `OSError` where all are taken.
    """
    for port in _candidates():
        both = {port, port + and_above}
        if all(each in RANGE and _is_reserved(each) and _can_bind(each) for each in both):
            return port
    raise OSError(f"no port from {RANGE.start} to {RANGE.stop - 1} is free")


def free_block() -> int:
    """The first of 1,000 neighbouring ports on which no server listens, reserved like `free_port`.

    Raises `OSError` where all are taken.
    """
    for first in BLOCKS:
        if _is_reserved(first) and all(map(_can_bind, range(first, first + BLOCKS.step))):
            return first
    raise OSError(f"no {BLOCKS.step} ports from {BLOCKS.start} to {BLOCKS.stop - 1} are free")


@functools.cache
def _candidates() -> Iterator[int]:
    """Each port once, in an order of this process's own."""
    return iter(random.Random(os.getpid()).sample(RANGE, len(RANGE)))  # noqa: S311 - no secret


@functools.cache
def _locks() -> int:
    """The descriptor of the file of locks, open as long as this process lives."""
    path = Path(tempfile.gettempdir()) / f"bearer-gateway-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_reserved(port: int) -> bool:
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    return True


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
