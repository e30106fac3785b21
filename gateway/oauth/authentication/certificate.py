"""`tls_client_auth` and `self_signed_tls_client_auth`: who a certificate is (RFC 8705 section 2).

That the certificate is sound, and that its owner holds the key, was proven in the TLS
handshake, by our listener or by a trusted proxy in front; here it is only compared with
what the client registered.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.oauth.binding.certificates import certificate_thumbprint
from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.distinguished_names import name_of, parse_name
from gateway.oauth.library_errors import certificate_errors

if TYPE_CHECKING:
    from cryptography import x509


def certificate_matches(metadata: ClientMetadata, der: bytes) -> bool:
    """Whether a certificate is the one that the client registered."""
    method = metadata.token_endpoint_auth_method
    if method == "self_signed_tls_client_auth":
        members = (metadata.jwks or {}).get("keys", [])
        return any(_is_same(member, der) for member in members if isinstance(member, dict))
    if method != "tls_client_auth":
        return False
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        return _has_name(metadata, certificate)
    except certificate_errors():
        return False


def _is_same(member: Mapping[str, Any], der: bytes) -> bool:
    chain = member.get("x5c")
    if isinstance(chain, list) and chain and isinstance(chain[0], str):
        try:
            return base64.b64decode(chain[0], validate=True) == der
        except ValueError:  # also of what is not ASCII
            return False
    return member.get("x5t#S256") == certificate_thumbprint(der)


def _has_name(metadata: ClientMetadata, certificate: x509.Certificate) -> bool:
    if subject := metadata.tls_client_auth_subject_dn:
        return name_of(certificate.subject) == parse_name(subject)
    from cryptography import x509

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if dns := metadata.tls_client_auth_san_dns:
        found = names.get_values_for_type(x509.DNSName)
        return dns.lower() in {name.lower() for name in found}
    if uri := metadata.tls_client_auth_san_uri:
        return uri in names.get_values_for_type(x509.UniformResourceIdentifier)
    if ip := metadata.tls_client_auth_san_ip:
        return ipaddress.ip_address(ip) in names.get_values_for_type(x509.IPAddress)
    if email := metadata.tls_client_auth_san_email:
        return email in names.get_values_for_type(x509.RFC822Name)
    return False
