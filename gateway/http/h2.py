"""HTTP/2 in plain values: codes, settings, what a peer can do, and which engine there is for it.

RFC 9113 sections 6.5.2 (settings), 7 (error codes).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Protocol

from gateway.http.fields import Field

Fields = tuple[Field, ...]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client (RFC 9113 section 3.4)."""

# Error codes (RFC 9113 section 7).
NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
SETTINGS_TIMEOUT = 0x4
REFUSED_STREAM = 0x7
CANCEL = 0x8
ENHANCE_YOUR_CALM = 0xB
INADEQUATE_SECURITY = 0xC
# Settings (section 6.5.2).
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_HEADER_LIST_SIZE = 0x6
NO_RFC7540_PRIORITIES = 0x9
DEFAULT_WINDOW = 65_535

BUNDLED = {"0.3.0": "1.70.0"}
"""The version of libnghttp2 in each version of the package that the extra may install."""
MIN_NGHTTP2 = (1, 68, 1)
"""The first without a published advisory (CVE-2026-27135 is fixed in it); `.ci/audit.py` holds
`BUNDLED` to it, since no scanner of packages sees a bundled library."""


class H2Error(Exception):
    """The connection can't be used any more; nothing is sent on it but a last GOAWAY."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        """For that GOAWAY."""


class H2Events(Protocol):
    """Receives what a peer does, in order."""

    def head_received(self, stream_id: int, fields: Fields, ends: bool) -> None:
        """A request (as a server), or a final response (as a client); `ends`: without a body."""

    def informational_received(self, stream_id: int, fields: Fields) -> None:
        """An interim response (1xx)."""

    def body_received(self, stream_id: int, data: bytes, ends: bool) -> None:
        """A piece of a body; it may be empty. `acknowledge` gives its part of the windows back."""

    def trailers_received(self, stream_id: int, fields: Fields) -> None:
        """The end of a body, with trailers."""

    def stream_reset(self, stream_id: int, code: int) -> None:
        """The peer broke a stream off; `stream_closed` comes next."""

    def stream_closed(self, stream_id: int, code: int) -> None:
        """A stream has ended, well (NO_ERROR) or not. Comes alone where a head was refused."""

    def window_updated(self, stream_id: int, increment: int) -> None:
        """The peer takes more; stream 0 is the connection."""

    def settings_received(self, settings: Mapping[int, int]) -> None:
        """The peer's settings; those that it left out stay as they were."""

    def settings_acknowledged(self) -> None:
        """The peer has applied ours."""

    def ping_received(self, data: bytes) -> None:
        """A PING, which is acknowledged already."""

    def ping_acknowledged(self, data: bytes) -> None:
        """The peer received our own."""

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        """The peer takes no more streams; ours above the last one were not processed."""

    def connection_ended(self, code: int) -> None:
        """Close: a GOAWAY was sent or received, and no stream is open any more."""


_AEAD = ("GCM", "CHACHA20", "CCM")


def is_adequate(tls_version: str | None, cipher: str) -> bool:
    """Whether HTTP/2 may be spoken by a TLS connection: TLS 1.2 takes ephemeral keys and AEAD (RFC
    9113 sections 9.2.1 and 9.2.2; appendix A has the others). `cipher` is OpenSSL's name."""
    if tls_version == "TLSv1.2":
        has_aead = any(mode in cipher for mode in _AEAD) and "PSK" not in cipher
        return has_aead and cipher.startswith(("ECDHE-", "DHE-"))
    return tls_version not in ("SSLv3", "TLSv1", "TLSv1.1")


def goaway(last_stream_id: int, code: int) -> bytes:
    """Return a GOAWAY frame for a connection whose engine has failed."""
    return b"\0\0\x08\x07\0\0\0\0\0" + last_stream_id.to_bytes(4) + code.to_bytes(4)


HOW_TO_INSTALL = "pip install ngh2==0.3.0"
"""The pinned engine, without the rest of a checkout's extra."""


@functools.cache
def is_available() -> bool:
    """Whether the extra `http2` is installed. Does not load it."""
    return find_spec("ngh2") is not None


def describe_engine() -> dict[str, str] | None:
    """Return name and version of the engine, and of the library in it; None without one."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("ngh2")
    except PackageNotFoundError:
        return None
    return {"name": "ngh2", "version": installed, "nghttp2": BUNDLED.get(installed, "unknown")}
