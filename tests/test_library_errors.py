"""Each exception class that a library defines becomes one of ours, or a rejection: never a 500.

Those of redis-py, sqlite3 and aiohttp: `store/test_store_redis_errors.py`,
`store/test_store_sqlite_file.py`, `app/test_app_json_client.py`.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import pkgutil
import ssl
from pathlib import Path
from types import ModuleType
from typing import Any

import aiodns
import cryptography
import cryptography.exceptions
import idna
import joserfc
import joserfc.errors
import pycares
import pytest
import yaml
from joserfc.jwk import ECKey, JWKRegistry
from support.jose_values import make_certificate
from support.running_gateway import StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.app.build import tls
from gateway.config.source import parse_document
from gateway.oauth.authentication.certificate import certificate_matches
from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.jose import JwtError, read_jwt, read_public_key, sign_jwt, verify_jwt
from gateway.oauth.keys.sealing import Seal, SealError
from gateway.upstream.discovery import DnsResolver

NEVER_CALLED = {
    "cryptography.fernet", "cryptography.hazmat.primitives.keywrap",
    "cryptography.hazmat.primitives.twofactor", "cryptography.hazmat.primitives.twofactor.totp",
    "cryptography.x509.verification", "cryptography.utils",
    "cryptography.hazmat.bindings._rust.x509",
}  # fmt: skip
"""Modules whose functions the gateway does not call."""


def exceptions_of(*libraries: ModuleType) -> list[type[Exception]]:
    found: set[type[Exception]] = set()
    for library in libraries:
        modules = [library]
        for module in pkgutil.walk_packages(library.__path__, f"{library.__name__}."):
            if module.name.rpartition(".")[2] != "__main__":
                try:
                    modules.append(importlib.import_module(module.name))
                except ImportError:
                    continue
        found |= {
            one
            for module in modules
            for one in vars(module).values()
            if inspect.isclass(one) and issubclass(one, Exception)
            and not issubclass(one, Warning)
            and one.__module__.startswith(library.__name__)
            and one.__module__ not in NEVER_CALLED
        }  # fmt: skip
    return sorted(found, key=lambda one: (one.__module__, one.__qualname__))


def make(kind: type[Exception]) -> Exception:
    for arguments in (("text",), (), (1, "text"), ("text", None)):
        try:
            return kind(*arguments)
        except TypeError:
            continue
    return kind.__new__(kind)


def raising(error: Exception) -> Any:
    def fail(*arguments: object, **named: object) -> object:
        raise error

    return fail


def test_enumeration_finds_the_classes_that_derive_from_nothing_else() -> None:
    names = {one.__name__ for one in exceptions_of(joserfc, cryptography)}
    assert {"UnsupportedAlgorithm", "InvalidSignature", "JoseError", "InvalidVersion"} <= names
    assert len(names) > 30
    assert {"DNSError", "AresError"} <= {one.__name__ for one in exceptions_of(aiodns, pycares)}


def is_of_certificates(kind: type[Exception]) -> bool:
    return kind.__module__.startswith("cryptography.x509")


@pytest.mark.parametrize(
    "kind", [one for one in exceptions_of(joserfc, cryptography) if not is_of_certificates(one)]
)
def test_jose(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    key = ECKey.generate_key("P-256")
    token = sign_jwt({"alg": "ES256"}, {"sub": "a"}, key)
    public = key.as_dict(private=False)
    monkeypatch.setattr("joserfc.jws.deserialize_compact", raising(make(kind)))
    with pytest.raises(JwtError):
        verify_jwt(token, [key], ["ES256"])
    monkeypatch.setattr("joserfc.jws.extract_compact", raising(make(kind)))
    with pytest.raises(JwtError):
        read_jwt(token)
    monkeypatch.setattr(JWKRegistry, "import_key", raising(make(kind)))
    assert read_public_key(public) is None


@pytest.mark.parametrize("kind", exceptions_of(cryptography))
def test_certificates_and_sealed_values(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path, "a")
    metadata = ClientMetadata(
        token_endpoint_auth_method="tls_client_auth", tls_client_auth_san_dns="a"
    )
    der = ssl.PEM_cert_to_DER_cert(certificate.cert.read_text())
    sealed = Seal(lambda: b"0" * 32).close(b"x", name="n")
    assert tls._end_of(certificate.cert) is not None
    monkeypatch.setattr("cryptography.x509.load_der_x509_certificate", raising(make(kind)))
    monkeypatch.setattr("cryptography.x509.load_pem_x509_certificates", raising(make(kind)))
    assert not certificate_matches(metadata, der)
    assert tls._end_of(certificate.cert) is None

    class Cipher:
        decrypt = staticmethod(raising(make(kind)))

    if is_of_certificates(kind):
        return
    seal = Seal(lambda: b"0" * 32)
    monkeypatch.setattr(seal, "_cipher", Cipher)
    with pytest.raises(SealError):
        seal.open(sealed, name="n")


@pytest.mark.parametrize("der", [b"\x30\x00", base64.b64decode("MIIBCgKCAQEA"), b"\x30" * 999])
def test_what_is_no_certificate_is_no_match(der: bytes) -> None:
    for method in ("tls_client_auth", "self_signed_tls_client_auth"):
        assert not certificate_matches(ClientMetadata(token_endpoint_auth_method=method), der)


@pytest.mark.parametrize("kind", [*exceptions_of(aiodns, pycares, idna), UnicodeError])
@pytest.mark.parametrize("where", ["getaddrinfo", "__init__"])
async def test_look_ups(kind: type[Exception], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiodns.DNSResolver, where, raising(make(kind)))
    with pytest.raises(OSError, match="can't be looked up"):
        await DnsResolver().look_up("a.test")


@pytest.mark.parametrize(
    "kind",
    [one for one in vars(ssl).values() if inspect.isclass(one) and issubclass(one, Exception)],
)
async def test_tls_to_an_upstream(
    kind: type[Exception],
    start: StartGateway,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = await start(upstream.url)

    async def fail(*arguments: object, **named: object) -> object:
        raise make(kind)

    monkeypatch.setattr("gateway.upstream.target.Target._dial", fail)
    async with gateway.session.get(gateway.url("/public")) as response:
        assert response.status == 502


@pytest.mark.parametrize("kind", exceptions_of(yaml))
def test_yaml(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    if kind is yaml.reader.ReaderError:
        error: Exception = yaml.reader.ReaderError("f", 1, 2, "e", "reason")
    else:
        error = make(kind)
    monkeypatch.setattr(yaml, "compose", raising(error))
    found = parse_document("a: 1", file="g.yaml", environ={}, directory=Path())
    assert [str(one)[:7] for one in found.problems] == ["g.yaml:"]


@pytest.mark.parametrize(
    "text",
    ['a: "\\UFFFFFFFF"', 'a: "\\U00110000"', 'a: "\\uD800"', '"\\uD800": 1', 'a: ["\\uDFFF${X}"]'],
)
def test_escape_for_no_character_is_reported(text: str) -> None:
    found = parse_document(text, file="g.yaml", environ={"X": "1"}, directory=Path())
    assert len(found.problems) == 1
    str(found.problems[0]).encode()
