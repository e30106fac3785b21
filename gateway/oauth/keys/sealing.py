"""Encrypts what must not be readable in the store, with a key that is not in the store.

AES-256-GCM (NIST SP 800-38D) with a random nonce; the name of the record is authenticated
too, so that a sealed value can't be moved to another place.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.oauth.errors import TemporarilyUnavailableError
from gateway.oauth.library_errors import cryptography_errors

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
_log = logging.getLogger(__name__)
_SEAL = b"gateway seal v1"
_MAC = b"gateway mac v1"


class SealError(Exception):
    """It was sealed with another key, or has been changed."""


class SealSecretError(TemporarilyUnavailableError):
    """The secret cannot be loaded."""

    def __init__(self) -> None:
        super().__init__(reason="seal_key")


class Seal:
    """Seals and opens values. The secret is asked for when it is first needed."""

    def __init__(self, load_secret: Callable[[], bytes]) -> None:
        """The methods raise `SealSecretError` where `load_secret` raises `OSError`."""
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
        except cryptography_errors():
            raise SealError from None

    def mac(self, message: bytes) -> bytes:
        """A code (32 bytes) that only who knows the secret can make."""
        return hmac.digest(self._derive(_MAC), message, hashlib.sha256)

    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._derive(_SEAL))

    def _derive(self, purpose: bytes) -> bytes:
        if self._secret is None:
            try:
                self._secret = self._load_secret()
            except OSError as error:
                _log.error("cannot load the encryption key (provider.seal_key): %s", error)
                raise SealSecretError from None
        # The secret has all its entropy already, so one HMAC is the whole of HKDF's expansion.
        return hmac.digest(self._secret, purpose, hashlib.sha256)
