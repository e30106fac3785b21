"""What requests show: opaque tokens of the gateway, or JWTs; and a certificate for TLS."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from bench.workloads import VARIED_TOKENS

ISSUER = "https://bench.example"
TTL_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class Credentials:
    """The tokens that a subject takes."""

    token: str
    token_file: Path
    """Others, one a line."""

    def varied(self) -> list[str]:
        """Those of requests whose heads vary."""
        with self.token_file.open() as file:
            return [line.strip() for line in itertools.islice(file, VARIED_TOKENS)]


def make_jwts(directory: Path) -> tuple[Credentials, str]:
    """JWTs (RS256), and the key to verify them as JWKS."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "kid": "bench", "alg": "RS256", "use": "sig",
           "n": _encode(numbers.n.to_bytes(256, "big")), "e": _encode(b"\1\0\1")}  # fmt: skip
    head = _encode(json.dumps({"alg": "RS256", "kid": "bench", "typ": "at+jwt"}).encode())
    now = int(time.time())

    def sign(number: int) -> str:
        claims = {"iss": ISSUER, "sub": "bench", "client_id": "bench", "scope": "bench",
                  "iat": now, "exp": now + TTL_S, "jti": str(number)}  # fmt: skip
        signed = f"{head}.{_encode(json.dumps(claims).encode())}"
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encode(signature)}"

    tokens = [sign(number) for number in range(VARIED_TOKENS + 1)]
    token_file = directory / "jwts"
    token_file.write_text("\n".join(tokens[1:]) + "\n")
    return Credentials(tokens[0], token_file), json.dumps({"keys": [jwk]})


def make_certificate(directory: Path) -> None:
    """`cert.pem`, `key.pem`, and `both.pem` of them, for 127.0.0.1: a P-256 key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (directory / "key.pem").touch(mode=0o600)
    (directory / "key.pem").write_bytes(secret)
    (directory / "cert.pem").write_bytes(chain)
    (directory / "both.pem").touch(mode=0o600)
    (directory / "both.pem").write_bytes(chain + secret)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
