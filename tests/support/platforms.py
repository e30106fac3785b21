"""Tokens and certificates as platforms give them to workloads."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import Key

from gateway.oauth.jose import sign_jwt

CLUSTER = "https://kubernetes.default.svc.cluster.local"
SPIRE = "https://oidc.shop.example"
GITHUB = "https://token.actions.githubusercontent.com"
GITLAB = "https://gitlab.com"
ORDERS = "system:serviceaccount:shop:orders"
SVID = "spiffe://shop.example/ns/shop/sa/orders"


def service_account_token(
    key: Key, audience: Any, now: float, *, subject: str = ORDERS, alg: str = "RS256", **claims: Any
) -> str:
    """A projected token, bound to a pod, as Kubernetes 1.32 issues it: without `typ`."""
    _, _, namespace, account = subject.split(":")
    said = {
        "aud": [audience] if isinstance(audience, str) else audience,
        "exp": int(now) + 3607,
        "iat": int(now),
        "iss": CLUSTER,
        "jti": "0f1fbb1d-d1f9-4eb3-b1d1-ad0bb2f9d7a4",
        "kubernetes.io": {
            "namespace": namespace,
            "node": {"name": "worker-1", "uid": "e0a6a8ac-7a1b-4c9a-9a35-1b3f1f6d0c11"},
            "pod": {"name": f"{account}-5d9c7b6f4-x2x7k", "uid": "7d1a6a1e-4f9d-4b1c-8a58-25"},
            "serviceaccount": {"name": account, "uid": "c4b7d0a3-6f4e-4e7a-9a7e-0d"},
            "warnafter": int(now) + 3000,
        },
        "nbf": int(now),
        "sub": subject,
    }
    return _sign(key, alg, {}, said, claims)


def jwt_svid(
    key: Key, audience: Any, now: float, *, subject: str = SVID, alg: str = "ES256", **claims: Any
) -> str:
    """A JWT-SVID as SPIRE issues it: without `iss` unless it is configured."""
    said = {"aud": [audience], "exp": int(now) + 300, "iat": int(now), "sub": subject}
    return _sign(key, alg, {"typ": "JWT"}, said, claims)


def github_token(key: Key, audience: Any, now: float, *, alg: str = "RS256", **claims: Any) -> str:
    """A token of a job of GitHub Actions."""
    said = {
        "jti": "a4f5c1b2-7b1b-4a4e-9d3f-9f2f8f0d7c55",
        "sub": "repo:org/name:ref:refs/heads/main",
        "aud": audience,
        "ref": "refs/heads/main",
        "repository": "org/name",
        "repository_owner": "org",
        "repository_owner_id": "65",
        "run_id": "1234567890",
        "workflow_ref": "org/name/.github/workflows/deploy.yml@refs/heads/main",
        "event_name": "push",
        "iss": GITHUB,
        "nbf": int(now) - 300,
        "exp": int(now) + 300,
        "iat": int(now),
    }
    return _sign(key, alg, {"typ": "JWT"}, said, claims)


def gitlab_token(key: Key, audience: Any, now: float, *, alg: str = "RS256", **claims: Any) -> str:
    """An ID token of a job of GitLab CI."""
    said = {
        "namespace_path": "shop",
        "project_id": "22",
        "project_path": "shop/orders",
        "pipeline_id": "574",
        "job_id": "302",
        "ref": "main",
        "ref_type": "branch",
        "ref_protected": "true",
        "runner_id": 1,
        "sub": "project_path:shop/orders:ref_type:branch:ref:main",
        "iss": GITLAB,
        "jti": "a4f5c1b2-0000-4a4e-9d3f-9f2f8f0d7c55",
        "aud": audience,
        "iat": int(now),
        "nbf": int(now) - 5,
        "exp": int(now) + 3600,
    }
    return _sign(key, alg, {"typ": "JWT"}, said, claims)


def _sign(
    key: Key, alg: str, header: dict[str, str], said: dict[str, Any], claims: dict[str, Any]
) -> str:
    """Claims that are None are left out."""
    header = {"alg": alg, "kid": str(key.kid)} | header
    said = {name: value for name, value in (said | claims).items() if value is not None}
    return sign_jwt(header, said, key)


@dataclass
class Authority:
    """The CA of a trust domain."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, *uris: str, now: float, is_ca: bool = False, signs: bool = False,
        life_s: float = 3600.0,
    ) -> bytes:  # fmt: skip
        """An X.509-SVID (DER): without a subject, named by its URIs. With `signs`, its key may sign
        certificates."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(
            x509.Name([]), self.certificate.subject, key.public_key(), self.key, uris, now,
            is_ca=is_ca, signs=signs, life_s=life_s,
        )  # fmt: skip
        return certificate.public_bytes(serialization.Encoding.DER)


def authority(domain: str, now: float) -> Authority:
    """A new CA for a trust domain."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, domain)])
    certificate = _certificate(
        name, name, key.public_key(), key, [f"spiffe://{domain}"], now, is_ca=True, life_s=86400.0
    )
    return Authority(certificate, key)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    uris: Any,
    now: float,
    *,
    is_ca: bool,
    life_s: float,
    signs: bool = True,
) -> x509.Certificate:
    start = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - datetime.timedelta(seconds=60))
        .not_valid_after(start + datetime.timedelta(seconds=life_s))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris]),
            critical=not list(subject),
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=signs,
                crl_sign=signs,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(signer, hashes.SHA256())
    )
