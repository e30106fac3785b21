"""X.509-SVIDs: who a certificate is, by its SPIFFE ID.

That a certificate is sound and that its owner holds the key was proven in the TLS handshake, by our
listener or by a trusted proxy in front. What is checked here is what SPIFFE asks for beside that:
one SPIFFE ID, no CA, and a CA of the trust domain.

https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.oauth.library_errors import certificate_errors
from gateway.oauth.workloads.rules import Workload, WorkloadRule, WorkloadRules
from gateway.oauth.workloads.subjects import trust_domain_of

if TYPE_CHECKING:
    from cryptography import x509


def find_by_certificate(
    rules: WorkloadRules, der: bytes, now: float, client_id: str = ""
) -> tuple[Workload, WorkloadRule] | None:
    """The workload that a certificate is, and its rule; None where there is none."""
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        spiffe_id = _spiffe_id(certificate)
        starts_at = certificate.not_valid_before_utc.timestamp()
        ends_at = certificate.not_valid_after_utc.timestamp()
    except certificate_errors():
        return None
    domain = trust_domain_of(spiffe_id)
    if domain is None or not starts_at <= now < ends_at:
        return None
    rule = rules.find_by_domain(domain, spiffe_id, client_id)
    if rule is None or not _is_of_domain(certificate, rule.ca):
        return None
    return Workload(domain, spiffe_id, f"spiffe://{domain}", ends_at), rule


def _spiffe_id(certificate: x509.Certificate) -> str:
    """The only URI of a leaf certificate (X.509-SVID sections 2 and 4.1); empty for others."""
    from cryptography import x509

    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            return ""
        if isinstance(extension.value, x509.KeyUsage) and extension.value.key_cert_sign:
            return ""
    return uris[0] if len(uris) == 1 else ""


def _is_of_domain(certificate: x509.Certificate, authorities: bytes) -> bool:
    """Whether one of the CAs signed the certificate; true where none are given."""
    return not authorities or any(
        _is_signed_by(certificate, authority) for authority in load_authorities(authorities)
    )


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except certificate_errors():
        return False
    return True


def read_authorities(file: str) -> bytes:
    """The contents of a file with CA certificates, as PEM. Raises `OSError` and `ValueError`."""
    pem = Path(file).read_bytes()
    try:
        load_authorities(pem)
    except certificate_errors() as error:
        raise ValueError(f"{file} holds no certificates that can be read: {error}") from None
    return pem


@lru_cache(maxsize=64)
def load_authorities(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Read CA certificates. Raises one of `certificate_errors`."""
    from cryptography import x509

    return tuple(x509.load_pem_x509_certificates(pem))
