"""The object that encrypts a client's connection, without a frame of Python for each record.

An event loop calls `read`, `write` and `pending` of the object for every request and response. In
the standard library, each is a function of Python that only calls its counterpart in C.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any


class DirectSSLObject(ssl.SSLObject):
    """An `ssl.SSLObject` for `sslobject_class` whose methods for data are those in C."""

    _sslobj: Any

    @property
    def read(self) -> Callable[..., Any]:
        """See `ssl.SSLObject`."""
        read: Callable[..., Any] = self._sslobj.read
        return read

    @property
    def write(self) -> Callable[..., int]:
        """See `ssl.SSLObject`."""
        write: Callable[..., int] = self._sslobj.write
        return write

    @property
    def pending(self) -> Callable[[], int]:
        """See `ssl.SSLObject`."""
        pending: Callable[[], int] = self._sslobj.pending
        return pending
