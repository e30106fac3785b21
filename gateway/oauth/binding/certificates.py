"""Client certificates: where a trusted proxy writes them, and their thumbprints.

RFC 8705 section 3.1 (`x5t#S256`), RFC 9440 (`Client-Cert`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from urllib.parse import unquote_to_bytes

_PEM = re.compile(
    rb"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----", re.ASCII
)
_ENVOY_CERT = re.compile(rb'(?:^|[;,])\s*Cert="?([^";,]+)"?', re.IGNORECASE)
MAX_BYTES = 32 * 1024


def certificate_thumbprint(der: bytes) -> str:
    """The SHA-256 thumbprint of a certificate, as `x5t#S256` writes it (RFC 8705 section 3.1)."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode("ascii")


def read_certificate_header(value: bytes) -> bytes | None:
    """The certificate (DER) in a header field, None where there is none that can be read.

    Understood are RFC 9440's `:base64:`, PEM with percent-escapes (nginx'
    `$ssl_client_escaped_cert`, the only `Cert` of Envoy's `X-Forwarded-Client-Cert`), and bare
    base64 of DER.
    """
    if not value or len(value) > MAX_BYTES:
        return None
    if elements := _ENVOY_CERT.findall(value):
        if len(elements) > 1:
            return None  # one of them may be the client's own word
        value = elements[0]
    if b"%" in value:
        value = unquote_to_bytes(value)
    pem = _PEM.match(value)
    encoded = pem[1] if pem else value.strip().removeprefix(b":").removesuffix(b":")
    try:
        der = base64.b64decode(b"".join(encoded.split()), validate=True)
    except binascii.Error:
        return None
    # A certificate is a SEQUENCE (RFC 5280 section 4.1), which begins with 0x30.
    return der if der.startswith(b"\x30") else None
