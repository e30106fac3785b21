"""Client secrets: hashed with argon2id, verified off the event loop.

Hashing is slow on purpose, so it runs in a thread of its own, at the lowest priority, and
what would have to wait too long is refused before any work is done; those who ask from
different places take turns (`FairQueue`). One thread, because two would hold each other up
while one of them has the interpreter's lock, and the event loop with them. A verification
that succeeded is remembered for a short while, by a key that does not disclose the
secret back, so that a client that asks often costs one hash a minute.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from argon2 import DEFAULT_RANDOM_SALT_LENGTH, PasswordHasher, low_level
from argon2.exceptions import InvalidHashError, VerificationError
from cachetools import TTLCache

from gateway.oauth.fair_queue import FairQueue
from gateway.oauth.models import Clock

MAX_WAITING = 64
"""Hashes that may wait for the thread; some 2 s of work."""
HASH_BYTES = 32
MEMO_TTL_S = 60.0
MEMO_ENTRIES = 10_000


def random_text(size: int) -> str:
    """`size` random bytes as text that goes everywhere: in URLs, headers and forms, and on a
    command line, where a leading hyphen would make it an option."""
    while (text := secrets.token_urlsafe(size)).startswith("-"):
        pass
    return text


class SecretHasher:
    """argon2id with the parameters that OWASP recommends as a minimum."""

    def __init__(
        self,
        *,
        memory_kib: int = 19 * 1024,
        iterations: int = 2,
        threads: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        self._hasher = PasswordHasher(
            time_cost=iterations, memory_cost=memory_kib, parallelism=1, hash_len=HASH_BYTES
        )
        self._dummy_hash = _random_hash(memory_kib, iterations)
        """Verified in place of the hash of an unknown client, so that it costs the same work as a
        known one, so that the time it takes does not distinguish them."""
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="argon2", initializer=_yield_to_others
        )
        self._queue = FairQueue(self._pool, threads=threads, max_waiting=MAX_WAITING)
        self._memo: TTLCache[bytes, bool] = TTLCache(MEMO_ENTRIES, MEMO_TTL_S, timer=clock)
        self._memo_key = secrets.token_bytes(32)

    async def hash(self, secret: str) -> str:
        """The hash to keep, in PHC string format. Raises `TemporarilyUnavailableError`."""
        return await self._queue.run("", self._hasher.hash, secret)

    async def verify(self, secret: str, secret_hash: str | None, *, source: str = "") -> bool:
        """Whether the secret, which `source` shows, is the one that was hashed; None stands for
        an unknown client.

        Raises `TemporarilyUnavailableError` where too many are waiting.
        """
        if self.was_right(secret, secret_hash or ""):
            return True
        is_right = await self._queue.run(
            source, self._verify, secret, secret_hash or self._dummy_hash
        )
        if is_right and secret_hash is not None:
            self._memo[self._memo_entry(secret, secret_hash)] = True
            return True
        return False

    def was_right(self, secret: str, secret_hash: str) -> bool:
        """Whether the secret was verified by this very hash a short time ago."""
        return self._memo_entry(secret, secret_hash) in self._memo

    def _verify(self, secret: str, secret_hash: str) -> bool:
        try:
            return self._hasher.verify(secret_hash, secret)
        except (VerificationError, InvalidHashError):
            return False

    def _memo_entry(self, secret: str, secret_hash: str) -> bytes:
        # The hash is part of the entry, so a new secret leaves the old entry behind.
        message = f"{secret_hash}\0{secret}".encode()
        # Not HMAC, for which OpenSSL lets another thread have the interpreter.
        return hashlib.blake2b(message, key=self._memo_key, digest_size=32).digest()

    async def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _random_hash(memory_kib: int, iterations: int) -> str:
    """A hash that no known secret has, without the work of computing one."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).rstrip(b"=").decode("ascii")
        for size in (DEFAULT_RANDOM_SALT_LENGTH, HASH_BYTES)
    )
    parameters = f"m={memory_kib},t={iterations},p=1"
    return f"$argon2id$v={low_level.ARGON2_VERSION}${parameters}${salt}${digest}"


def _yield_to_others() -> None:
    """Let this thread run when the event loop does not want the core.

    Callers with wrong secrets can keep every hashing thread busy; at the same priority as
    the loop, each of them would delay all requests for a time slice.
    """
    with contextlib.suppress(AttributeError, OSError):
        # Linux has priorities by thread; elsewhere this would be the whole process.
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
