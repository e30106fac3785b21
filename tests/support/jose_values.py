"""Keys, assertions, proofs and certificates of clients, made for tests."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from gateway.oauth.jose import sign_jwt

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def make_key(algorithm: str = "ES256") -> Key:
    """A private key for an algorithm."""
    if algorithm == "EdDSA":
        return OKPKey.generate_key("Ed25519", auto_kid=True)
    if algorithm == "RS256":
        return RSAKey.generate_key(2048, auto_kid=True)
    return ECKey.generate_key("P-256", auto_kid=True)


def jwks(*keys: Key) -> dict[str, Any]:
    """A set of the public halves."""
    return {"keys": [{**key.as_dict(private=False), "kid": key.kid} for key in keys]}


def make_assertion(
    key: Key, client_id: str, audience: Any, now: float, *, alg: str = "ES256", **claims: Any
) -> str:
    """A client assertion (RFC 7523); claims that are None are left out."""
    said = {
        "iss": client_id, "sub": client_id, "aud": audience, "jti": f"jti-{now}",
        "exp": int(now) + 60, "iat": int(now),
    } | claims  # fmt: skip
    said = {name: value for name, value in said.items() if value is not None}
    return sign_jwt({"alg": alg, "kid": key.kid}, said, key)


def make_proof(
    key: Key,
    method: str,
    url: str,
    now: float,
    *,
    token: str | None = None,
    header: dict[str, Any] | None = None,
    alg: str = "ES256",
    **claims: Any,
) -> str:
    """A DPoP proof (RFC 9449 section 4.2); claims that are None are left out."""
    said = {"htm": method, "htu": url, "iat": int(now), "jti": f"proof-{now}"} | claims
    if token is not None:
        digest = hashlib.sha256(token.encode()).digest()
        said.setdefault("ath", base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
    said = {name: value for name, value in said.items() if value is not None}
    jose = {"alg": alg, "typ": "dpop+jwt", "jwk": key.as_dict(private=False)} | (header or {})
    return sign_jwt(jose, said, key)


@dataclass
class Certificate:
    """A certificate and its key, in files."""

    cert: Path
    key: Path
    der: bytes

    @property
    def thumbprint(self) -> str:
        """As `x5t#S256`."""
        digest = hashlib.sha256(self.der).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def make_certificate(directory: Path, name: str, *, issuer: Certificate | None = None,
                     is_ca: bool = False) -> Certificate:  # fmt: skip
    """A certificate for `name` with several alternative names; self-signed without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Tests"),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    signer, issuer_name = key, subject
    if issuer is not None:
        loaded = serialization.load_pem_private_key(issuer.key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
        issuer_name = x509.load_der_x509_certificate(issuer.der).subject
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName(f"{name}.example"),
                    x509.DNSName("localhost"),
                    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    x509.UniformResourceIdentifier(f"spiffe://tests/{name}"),
                    x509.RFC822Name(f"{name}@tests.example"),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    cert_path, key_path = directory / f"{name}.crt", directory / f"{name}.key"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Certificate(cert_path, key_path, der)
