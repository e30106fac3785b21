"""Sees that files have changed, by looking at them.

Looking works everywhere that a file can be read: it finds a file that was written, one that
was renamed into place, and one below a symbolic link that was turned, as Kubernetes does with
`..data` of a mounted ConfigMap or Secret. It costs a `stat` for each file; contents are read
only where that shows something new, and contents alone decide.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from gateway.background import EXHAUSTED, RetryPauses
from gateway.config.client_files import digest_names, list_files

Clock = Callable[[], float]
Digests = Mapping[Path, bytes | None]
"""SHA-256 of the contents of files; None where there is nothing to read."""

MAX_DEBOUNCES = 20
"""A file that is written all the time is loaded all the same, some time."""


def read_digest(path: Path) -> bytes | None:
    """Return the SHA-256 of what is in a file; of a directory, that of the names of the files of
    clients in it. None where it can't be read. Raises `OSError` where the process has no descriptor
    or memory to read it: that says nothing about the file."""
    try:
        if path.is_dir():
            return digest_names(list_files(path))
        return sha256(path.read_bytes()).digest()
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None


def find_special_files(paths: Iterable[Path]) -> frozenset[Path]:
    """Return those that are there, and neither regular files nor directories."""
    return frozenset(
        path for path in paths if path.exists() and not path.is_file() and not path.is_dir()
    )


class Files:
    """A set of files, and what was last found in them."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[object, bytes | None]] = {}

    def digests(self, paths: Iterable[Path]) -> dict[Path, bytes | None]:
        """Return the digests of the files."""
        found: dict[Path, tuple[object, bytes | None]] = {}
        for path in paths:
            signature = _signature(path)
            known = self._known.get(path)
            if known is None or known[0] != signature:
                known = signature, read_digest(path)
            found[path] = known
        self._known = found
        return {path: digest for path, (_, digest) in found.items()}


def _signature(path: Path) -> object:
    try:
        seen = os.stat(path)  # of what a link leads to
    except OSError as error:
        return error.errno
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


class FileWatch:
    """Calls for a reload when the contents of files are others, and have stood still."""

    def __init__(
        self,
        *,
        expected: Callable[[], Digests],
        on_change: Callable[[], Awaitable[object]],
        interval_s: Callable[[], float],
        debounce_s: Callable[[], float],
    ) -> None:
        """`expected` is what is in the files as far as the last reload knows."""
        self._expected = expected
        self._on_change = on_change
        self._interval_s = interval_s
        self._debounce_s = debounce_s
        self._files = Files()

    async def run(self) -> None:
        """Look until cancelled."""
        retries = RetryPauses("watch on the files of the configuration")
        pause_s = 0.0
        while True:
            await asyncio.sleep(max(pause_s, self._interval_s()))
            pause_s = 0.0
            try:
                await self._look()
            except Exception as error:
                pause_s = retries.fail(error)
            else:
                retries.succeed()

    async def _look(self) -> None:
        found = await self._read()
        if found == self._expected():
            return
        for _ in range(MAX_DEBOUNCES):
            await asyncio.sleep(self._debounce_s())
            before, found = found, await self._read()
            if found == before:
                break
        if found != self._expected():
            await self._on_change()

    async def _read(self) -> dict[Path, bytes | None]:
        # Not in the event loop: a file may be on a disk that takes its time.
        return await asyncio.to_thread(self._files.digests, tuple(self._expected()))
