"""Issuers on real sockets: keys that are discovered, behind a private CA, a bearer, in rotation."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import settings
from support.jose_values import Certificate, make_certificate, make_key
from support.provider import Clock
from support.servers.issuer import Issuer, issuer

from gateway.app.issuer_client import IssuerClient
from gateway.app.json_client import JsonClient
from gateway.oauth.external_issuers.jwt import JwtIssuers
from gateway.oauth.jose import JwtError, sign_jwt
from gateway.oauth.keys.remote import IssuerUnavailableError, RemoteKeys

API = "https://api.example.com"


def server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    return context


@dataclass
class Trust:
    """What verifies tokens of an issuer, as the gateway does."""

    fetcher: JsonClient = field(default_factory=JsonClient)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.client = IssuerClient(self.fetcher)
        self.keys = RemoteKeys(
            self.fetcher.get, fetch_from=self.client.fetch_from, clock=self.clock
        )

    async def verify(self, running: Issuer, key: Any, *, kid: str | None = "", **keys: Any) -> None:
        """Verify a token of the issuer that `key` signed."""
        listed = settings.jwt_issuer("k8s", running.url, keys.pop("jwks_uri", None), API, **keys)
        claims = {"iss": running.url, "aud": API, "sub": "x", "exp": int(self.clock.now) + 600}
        header = {"alg": "ES256"} | ({} if kid is None else {"kid": kid or key.kid})
        token = sign_jwt(header, claims, key)
        await JwtIssuers([listed], self.keys, wall_clock=self.clock).verify(token)


@pytest.fixture
async def trust() -> AsyncIterator[Trust]:
    found = Trust()
    yield found
    await found.client.close()
    await found.fetcher.close()


@pytest.mark.parametrize(
    "path", ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"]
)
async def test_issuer_alone_is_enough(trust: Trust, path: str) -> None:
    key = make_key()
    async with issuer(key) as running:
        running.metadata_path = path
        await trust.verify(running, key)
        await trust.verify(running, key)
    assert running.requests.count("/jwks") == 1
    with pytest.raises(JwtError):
        await trust.verify(running, make_key())


async def test_issuer_with_a_path_is_found_as_rfc_8414_writes_it(trust: Trust) -> None:
    key = make_key()
    async with issuer(key) as running:
        authority, running.url = running.url, f"{running.url}/realms/shop/"
        running.metadata = {"jwks_uri": f"{authority}/jwks"}
        running.metadata_path = "/.well-known/oauth-authorization-server/realms/shop"
        await trust.verify(running, key)
    assert running.requests == [
        "/realms/shop/.well-known/openid-configuration", running.metadata_path, "/jwks",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://another.example"}, {"jwks_uri": None}, {"jwks_uri": "ftp://x/"},
        {"jwks_uri": "http://[/"}, {"jwks_uri": 7},
    ],
)  # fmt: skip
async def test_metadata_that_cannot_be_trusted_is_unavailable_not_invalid(
    trust: Trust, metadata: dict[str, Any]
) -> None:
    key = make_key()
    async with issuer(key) as running:
        running.metadata = metadata
        with pytest.raises(IssuerUnavailableError, match="failed to fetch the keys of http://127"):
            await trust.verify(running, key)
        assert "/jwks" not in running.requests


async def test_keys_of_an_https_issuer_are_never_fetched_in_clear(
    trust: Trust, tmp_path: Path
) -> None:
    ca = make_certificate(tmp_path, "ca", is_ca=True)
    server = make_certificate(tmp_path, "server", issuer=ca)
    key = make_key()
    async with issuer(key) as plain, issuer(key, tls=server_context(server)) as running:
        running.metadata = {"jwks_uri": plain.jwks_uri}
        with pytest.raises(IssuerUnavailableError, match="not as safe as the issuer"):
            await trust.verify(running, key, ca=str(ca.cert))
    assert plain.requests == []


async def test_keys_behind_a_private_ca_and_a_bearer_as_a_cluster_has_them(
    trust: Trust, tmp_path: Path
) -> None:
    """The token of the service account is replaced, the CA and the signing key are rotated."""
    ca, later = (make_certificate(tmp_path, name, is_ca=True) for name in ("ca", "later"))
    bundle, token = tmp_path / "bundle.crt", tmp_path / "token"
    bundle.write_bytes(ca.cert.read_bytes())
    token.write_text("first\n")
    reached = {"ca": str(bundle), "token_file": str(token)}
    old, new = make_key(), make_key()
    tls = server_context(make_certificate(tmp_path, "server", issuer=ca))
    async with issuer(old, tls=tls) as running:
        running.token = "first"
        with pytest.raises(IssuerUnavailableError, match="ClientConnectorCertificateError"):
            await trust.verify(running, old)
        await trust.verify(running, old, **reached)
        assert set(running.authorizations) == {"Bearer first"}

        running.keys[:], running.token = [new], "second"
        token.write_text("second")
        trust.clock.now += 6
        await trust.verify(running, new, **reached)
        trust.clock.now += 6
        with pytest.raises(JwtError):
            await trust.verify(running, old, **reached)

        renewed = make_certificate(tmp_path, "renewed", issuer=later)
        tls.load_cert_chain(renewed.cert, renewed.key)
        running.keys[:] = [old]
        await trust.client.close()  # else the connection is still good
        trust.clock.now += 6
        with pytest.raises(JwtError):  # while its new certificate is of no CA that is known
            await trust.verify(running, old, **reached)
        bundle.write_bytes(ca.cert.read_bytes() + later.cert.read_bytes())
        trust.clock.now += 6
        await trust.verify(running, old, **reached)


async def test_replaced_key_without_an_id_is_found_but_not_for_each_bad_signature(
    trust: Trust,
) -> None:
    old, new = make_key(), make_key()
    async with issuer(old) as running:
        await trust.verify(running, old, kid=None, jwks_uri=running.jwks_uri)
        running.keys[:] = [new]
        with pytest.raises(JwtError):
            await trust.verify(running, new, kid=None, jwks_uri=running.jwks_uri)
        assert len(running.requests) == 1, "it was fetched a moment ago"
        trust.clock.now += 6
        await trust.verify(running, new, kid=None, jwks_uri=running.jwks_uri)
        for _ in range(5):
            with pytest.raises(JwtError):
                await trust.verify(running, make_key(), kid=None, jwks_uri=running.jwks_uri)
        assert len(running.requests) == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "can't be read: No such file"), ("", "holds no token"), ("a\nb", "holds no token")],
)
async def test_token_file_that_cannot_be_used_is_named(
    trust: Trust, tmp_path: Path, content: str | None, problem: str
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
    ca = make_certificate(tmp_path, "ca", is_ca=True)
    tls = server_context(make_certificate(tmp_path, "server", issuer=ca))
    async with issuer(make_key(), tls=tls) as running:
        with pytest.raises(IssuerUnavailableError, match=f"token.*{problem}"):
            await trust.verify(running, make_key(), ca=str(ca.cert), token_file=str(token))
    assert running.requests == []


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nx"])
async def test_ca_without_certificates_trusts_none(
    trust: Trust, tmp_path: Path, content: str
) -> None:
    ca = tmp_path / "empty.crt"
    ca.write_text(content)
    with pytest.raises(IssuerUnavailableError, match=r"empty\.crt"):
        await trust.verify(Issuer(url="https://127.0.0.1:1"), make_key(), ca=str(ca))


async def test_token_is_for_the_issuer_and_servers_of_its_ca_alone(
    trust: Trust, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    sent: list[tuple[str, Mapping[str, str]]] = []

    async def get(url: str, headers: Mapping[str, str] | None = None) -> object:
        sent.append((url, headers or {}))
        if url.endswith("configuration"):
            return {"issuer": "https://a.example", "jwks_uri": "https://b.example/jwks"}
        return {"keys": []}

    trust.fetcher.get = get  # type: ignore[method-assign]
    listed = settings.jwt_issuer("a", "https://a.example", None, API, token_file=str(token))
    await trust.keys.keys(listed.keys)
    assert sent == [
        (
            "https://a.example/.well-known/openid-configuration",
            {"Authorization": "Bearer secret"},
        ),
        ("https://b.example/jwks", {}),
    ]
