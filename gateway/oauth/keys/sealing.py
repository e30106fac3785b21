"""What must not be readable in the store: sealed with a key that is not in the store.

AES-256-GCM (NIST SP 800-38D) with a random nonce; the name of the record is authenticated
too, so that a sealed value can't be moved to another place.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
_SEAL = b"gateway seal v1"
_MAC = b"gateway mac v1"


class SealError(Exception):
    """It was sealed with another key, or has been changed."""


class Seal:
    """Seals and opens values. The secret is asked for when it is first needed."""

    def __init__(self, load_secret: Callable[[], bytes]) -> None:
        """`load_secret` may raise `OSError`, and so may the methods then."""
        self._load_secret = load_secret
        self._secret: bytes | None = None

    def close(self, value: bytes, *, name: str) -> bytes:
        """Seal a value under a name."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher().encrypt(nonce, value, name.encode())

    def open(self, sealed: bytes, *, name: str) -> bytes:
        """The value. Raises `SealError`."""
        nonce, encrypted = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._cipher().decrypt(nonce, encrypted, name.encode())
        except (InvalidTag, ValueError):
            raise SealError from None

    def mac(self, message: bytes) -> bytes:
        """A code (32 bytes) that only who knows the secret can make."""
        return hmac.digest(self._derive(_MAC), message, hashlib.sha256)

    def _cipher(self) -> AESGCM:
        return AESGCM(self._derive(_SEAL))

    def _derive(self, purpose: bytes) -> bytes:
        if self._secret is None:
            self._secret = self._load_secret()
        # The secret has all its entropy already, so one HMAC is the whole of HKDF's expansion.
        return hmac.digest(self._secret, purpose, hashlib.sha256)
