"""Makes keys, requests and challenge certificates, and checks what the CA issued."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import msgspec

from gateway.acme.errors import AcmeError
from gateway.oauth.library_errors import certificate_errors

if TYPE_CHECKING:
    from cryptography import x509

ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"  # RFC 8737 section 6.1
SKEW_S = 300.0
"""A certificate may begin so much later than now: clocks differ."""


class Certificate(msgspec.Struct, frozen=True):
    """A certificate with its chain and key."""

    domain: str
    chain: str
    """PEM, the leaf first."""
    key: str
    """PEM, PKCS #8, not encrypted."""
    not_before: float
    """Unix seconds, as the other one."""
    not_after: float

    def __repr__(self) -> str:
        return f"<Certificate {self.domain} until {self.not_after:.0f}>"


def make_key() -> str:
    """Return a new private key (P-256), PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


def make_request(domain: str, key: str) -> bytes:
    """Return a certificate signing request, PEM. OCSP must-staple is not asked for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    names = x509.SubjectAlternativeName([x509.DNSName(domain)])
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(names, critical=False)
        .sign(_load_key(key), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def check_chain(domain: str, chain: str, key: str, *, now: float) -> Certificate:
    """Return a certificate that can be served for a domain at `now` (Unix seconds).

    Raises `AcmeError` for another name or key, one that is not valid now, a chain that does not
    fit, and OCSP must-staple: nothing is stapled here, so clients would reject each handshake.
    """
    from cryptography import x509

    try:
        leaf, *issuers = x509.load_pem_x509_certificates(chain.encode("ascii"))
        begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        _check_leaf(leaf, domain, key)
        child = leaf
        for issuer in issuers:
            child.verify_directly_issued_by(issuer)
            child = issuer
    except certificate_errors() as error:
        raise AcmeError(
            "certificate",
            f"the chain that the CA issued can't be used: {type(error).__name__}: {error}",
        ) from None
    if not begin - SKEW_S <= now < end:
        raise AcmeError("certificate", "the certificate that the CA issued is not valid now")
    return Certificate(domain, chain, key, begin, end)


def _check_leaf(leaf: x509.Certificate, domain: str, key: str) -> None:
    from cryptography import x509

    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if domain not in [name.lower() for name in names.get_values_for_type(x509.DNSName)]:
        raise AcmeError("certificate", f"the certificate that the CA issued is not for {domain}")
    if leaf.public_key() != _load_key(key).public_key():
        raise AcmeError("certificate", "the certificate that the CA issued is of another key")
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.TLSFeature):
            raise AcmeError(
                "certificate",
                "the certificate that the CA issued demands OCSP stapling (must-staple), which "
                "is not supported: choose another profile",
            )


def make_challenge_certificate(domain: str, key_authorization: str) -> tuple[str, str]:
    """Return the certificate (PEM) of a tls-alpn-01 challenge, and its key (RFC 8737 section 3)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    digest = hashes.Hash(hashes.SHA256())
    digest.update(key_authorization.encode("ascii"))
    key = make_key()
    private = _load_key(key)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME challenge")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .add_extension(
            # An OCTET STRING of 32 bytes, in DER.
            x509.UnrecognizedExtension(
                x509.ObjectIdentifier(ACME_IDENTIFIER), b"\x04\x20" + digest.finalize()
            ),
            critical=True,
        )
        .sign(private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"), key


def renewal_id(chain: str) -> str | None:
    """Return what identifies a certificate to the CA (RFC 9773 section 4.1); None where it has no
    authority key identifier."""
    from base64 import urlsafe_b64encode

    from cryptography import x509

    try:
        leaf = x509.load_pem_x509_certificate(chain.encode("ascii"))
        authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except certificate_errors():
        return None
    if authority.key_identifier is None:
        return None
    number = leaf.serial_number
    parts = (authority.key_identifier, number.to_bytes(number.bit_length() // 8 + 1, "big"))
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode("ascii") for part in parts)


def _load_key(key: str):  # type: ignore[no-untyped-def]
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(key.encode("ascii"), password=None)
