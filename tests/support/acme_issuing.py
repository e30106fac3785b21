"""A CA in a few lines, and an ACME client that asks it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.acme.client import AcmeClient, Order
from gateway.acme.errors import AcmeError
from gateway.acme.settings import AcmeSettings
from gateway.acme.state import Account, Challenge

DAY = datetime.timedelta(days=1)


def issue(
    key: Any,
    name: str = "api.gateway.test",
    *,
    now: float | None = None,
    begin: float = -1.0,
    end: float = 1.0,
    must_staple: bool = False,
    other_issuer: bool = False,
    serial: int = 0x87654321,
) -> str:
    """A chain of a leaf and its CA for a private key (PEM) or a public one; `begin` and `end` are
    days from `now`."""
    at = datetime.datetime.fromtimestamp(time.time() if now is None else now, datetime.UTC)
    ca_key, other_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")])
    if isinstance(key, str):
        key = serialization.load_pem_private_key(key.encode(), None).public_key()

    def build(subject: x509.Name, public_key: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public_key)
            .serial_number(serial)
            .not_valid_before(at + begin * DAY)
            .not_valid_after(at + end * DAY)
        )

    ca = build(ca_name, ca_key.public_key()).sign(ca_key, hashes.SHA256())
    leaf = build(x509.Name([]), key).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
    )
    leaf = leaf.add_extension(
        x509.AuthorityKeyIdentifier(b"\x69\x88\x5b\x6b", None, None), critical=False
    )
    if must_staple:
        leaf = leaf.add_extension(
            x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False
        )
    signed = leaf.sign(other_key if other_issuer else ca_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return (signed.public_bytes(pem) + ca.public_bytes(pem)).decode()


class FakeClient(AcmeClient):
    """Asks the CA of a test in place of one on the network."""

    def __init__(self, ca: FakeCa, settings: AcmeSettings, account: Account | None) -> None:
        self._ca, self._own, self._account = ca, settings, account

    def close(self) -> None:
        self._ca.is_in_use = False

    def open(self) -> Account:
        self._ca.fail("open")
        self._ca.enter()
        return self._account or Account("{}", "https://ca.example/account/1", self._own.email)

    def order(self, domain: str, request: bytes, *, replaces: str | None = None) -> Order:
        self._ca.fail("order")
        self._ca.replaced.append(replaces)
        key = x509.load_pem_x509_csr(request)
        challenge = Challenge(self._own.challenge, domain, "token", "token.thumbprint")
        return Order((domain, key), challenge, None)  # type: ignore[arg-type]

    def finish(self, order: Order) -> str:
        self._ca.seen(order.challenge)
        self._ca.fail("finish")
        domain, request = order.resource
        self._ca.issued.append(domain)
        return self._ca.issue(domain, request.public_key())

    def renewal_time(self, chain: str) -> tuple[float | None, float]:
        self._ca.fail("renewal_time")
        self._ca.asked += 1
        return self._ca.renew_at, self._ca.ask_in_s


@dataclass
class FakeCa:
    """Issues for as long as a test wants, and fails as it wants."""

    clock: Callable[[], float]
    lifetime_days: float = 90.0
    renew_at: float | None = None
    ask_in_s: float = 6 * 3600.0
    failing: dict[str, AcmeError] = field(default_factory=dict)
    seen: Callable[[Challenge | None], None] = lambda challenge: None
    attempts: int = 0
    asked: int = 0
    issued: list[str] = field(default_factory=list)
    replaced: list[str | None] = field(default_factory=list)
    is_in_use: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def make_client(self, settings: AcmeSettings, account: Account | None) -> AcmeClient:
        """A client of this CA."""
        return FakeClient(self, settings, account)

    def enter(self) -> None:
        """A process begins: no two may at once."""
        assert not self.is_in_use
        self.is_in_use = True
        self.attempts += 1

    def fail(self, method: str) -> None:
        """Raise what a test wants of a method."""
        if (error := self.failing.get(method)) is not None:
            raise error

    def issue(self, domain: str, key: Any) -> str:
        """A chain for a name."""
        options = {"begin": -0.01, "end": self.lifetime_days, **self.options}
        return issue(key, domain, now=self.clock(), **options)
