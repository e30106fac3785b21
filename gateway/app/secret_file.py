"""The secret that seals private keys in the store: from the configuration, or a file of its own.

The file is made where it is missing, readable by its owner only, and it has to be the same
for all processes on one store.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from gateway.config import Config
from gateway.store_url import NONE

SECRET_BYTES = 32


def seal_secret(config: Config) -> Callable[[], bytes]:
    """How to come by the secret, when it is first needed."""
    provider = config.provider
    if provider.seal_key is not None:
        given = provider.seal_key.get_secret_value().encode()
        return lambda: given
    if config.store == NONE:  # nothing is kept, so nothing has to be read by another process
        made = secrets.token_bytes(SECRET_BYTES)
        return lambda: made
    path = Path(provider.seal_key_file)
    return lambda: read_or_make(path)


def read_or_make(path: Path) -> bytes:
    """The secret in a file. Of several processes that find none, one makes it for all.

    Raises `OSError`.
    """
    try:
        return path.read_bytes().strip()
    except FileNotFoundError:
        pass
    # Written whole under another name first: no process may ever read a part of it.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)
    return path.read_bytes().strip()
