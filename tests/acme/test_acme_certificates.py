"""What the CA issued is checked before it is used."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from support.acme_issuing import issue

from gateway.acme.certificates import (
    ACME_IDENTIFIER,
    check_chain,
    make_challenge_certificate,
    make_key,
    make_request,
    renewal_id,
)
from gateway.acme.errors import AcmeError

NAME = "api.gateway.test"


def test_certificate_that_fits_is_taken() -> None:
    key = make_key()
    found = check_chain(NAME, issue(key), key, now=time.time())
    assert abs(found.not_after - time.time() - 86400) < 60
    assert key not in repr(found)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "other.gateway.test"}, f"is not for {NAME}"),
        ({"begin": 0.5}, "is not valid now"),
        ({"begin": -2.0, "end": -1.0}, "is not valid now"),
        ({"must_staple": True}, "must-staple"),
        ({"other_issuer": True}, "chain that the CA issued can't be used"),
    ],
)
def test_certificate_that_does_not_fit_is_refused(options: dict[str, object], text: str) -> None:
    key = make_key()
    with pytest.raises(AcmeError, match=text) as caught:
        check_chain(NAME, issue(key, **options), key, now=time.time())  # type: ignore[arg-type]
    assert caught.value.reason == "certificate"


@pytest.mark.parametrize("chain", ["", "nothing of the kind", "\u00e9"])
def test_what_is_no_certificate_is_refused(chain: str) -> None:
    with pytest.raises(AcmeError):
        check_chain(NAME, chain, make_key(), now=time.time())


def test_certificate_of_another_key_is_refused() -> None:
    with pytest.raises(AcmeError, match="another key"):
        check_chain(NAME, issue(make_key()), make_key(), now=time.time())


def test_request_does_not_ask_for_must_staple() -> None:
    request = x509.load_pem_x509_csr(make_request(NAME, make_key()))
    assert [one.oid for one in request.extensions] == [x509.SubjectAlternativeName.oid]
    assert request.is_signature_valid


def test_challenge_certificate_is_as_rfc_8737_has_it() -> None:
    certificate, _ = make_challenge_certificate(NAME, "token.thumbprint")
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    extension = loaded.extensions.get_extension_for_oid(x509.ObjectIdentifier(ACME_IDENTIFIER))
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"token.thumbprint")
    assert extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert extension.value.value == b"\x04\x20" + digest.finalize()
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]


def test_renewal_id_is_that_of_the_example_in_rfc_9773() -> None:
    # Section 4.1, its key identifier shortened: 69:88:5B:6B, serial 00:87:65:43:21.
    assert renewal_id(issue(make_key())) == "aYhbaw.AIdlQyE"
    assert renewal_id("nothing of the kind") is None
