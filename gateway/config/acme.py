"""The configuration of certificates by ACME (RFC 8555), and how its keys must fit together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.config.problems import Path
from gateway.config.scalars import Bool, File, HostName, Secret, Section, StoreUrl, Text, WebUrl

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
SPECIAL_DOMAINS = (
    "localhost", "local", "internal", "test", "example", "invalid", "onion", "alt", "home.arpa",
)  # fmt: skip
"""Domains for which no public CA issues (RFC 6761, RFC 6762, RFC 9476...)."""

_EMAIL = re.compile(r"[^@\s,:?]+@[^@\s,:?]+")


def _refuse_wildcard(name: object) -> object:
    if isinstance(name, str) and name.startswith("*."):
        raise ValueError(
            "a wildcard needs the challenge dns-01, which is not supported: list each name"
        )
    return name


def _check_domain(name: str) -> str:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        raise ValueError(f"{name} is an IP address, expected a DNS name")
    if name != name.lower() or name.endswith("."):
        wanted = name.lower().rstrip(".")
        raise ValueError(f"expected lower case without a dot at the end: {wanted!r}")
    return name


def _check_email(email: str) -> str:
    if not _EMAIL.fullmatch(email):
        raise ValueError("expected one address, such as ops@example.com, without mailto:")
    return email


def _check_directory(url: str) -> str:
    if not url.startswith("https://"):
        raise ValueError("expected an https URL (RFC 8555 section 6.1)")
    return url


Domain = Annotated[HostName, AfterValidator(_check_domain), BeforeValidator(_refuse_wildcard)]
Email = Annotated[str, AfterValidator(_check_email)]
DirectoryUrl = Annotated[WebUrl, AfterValidator(_check_directory)]


class ExternalAccount(Section):
    """The account at the CA to which the one of ACME belongs (RFC 8555 section 7.3.4)."""

    key_id: Text = Field(description="Identifier of the MAC key, from the CA.")
    mac_key: Secret = Field(description="The MAC key, base64url, from the CA.")


class Acme(Section):
    """Certificates by ACME (RFC 8555); needs the extra `acme`."""

    domains: list[Domain] = Field(
        min_length=1,
        description=(
            "Names to get certificates for, one certificate each. A client that names none of "
            "them (SNI) gets the certificate in `cert`, or that of the first."
        ),
    )
    email: Email | None = Field(
        None, description="Address by which the CA can reach the operator; optional."
    )
    directory: DirectoryUrl = Field(
        LETS_ENCRYPT,
        description=(
            "Directory URL of the CA; Let's Encrypt by default. The CA's terms of service are "
            "agreed to."
        ),
    )
    staging: Bool = Field(
        False,
        description=(
            "Use Let's Encrypt's staging environment, whose certificates no client trusts and "
            "whose limits are high: to try a configuration."
        ),
    )
    challenge: Literal["tls-alpn-01", "http-01"] = Field(
        "tls-alpn-01",
        description=(
            "How to show control of a name: `tls-alpn-01` on port 443 of it, by a handshake "
            "(RFC 8737); `http-01` on port 80, by `listen.http_redirect`."
        ),
    )
    storage: StoreUrl | None = Field(
        None,
        repr=False,  # it may hold a password
        description=(
            "URL of the store that keeps the account, certificates and challenges, private keys "
            "sealed with `provider.seal_key`; `store` if not given."
        ),
    )
    directory_ca: File | None = Field(
        None,
        description="PEM file with the CAs of the directory's own certificate, of a private CA.",
    )
    external_account: ExternalAccount | None = Field(
        None, description="External account binding, where the CA requires it."
    )
    profile: Text | None = Field(
        None, description="Certificate profile to ask for, where the CA offers several."
    )

    @property
    def directory_url(self) -> str:
        """The directory to use."""
        return LETS_ENCRYPT_STAGING if self.staging else self.directory


def check_acme(where: Path, acme: Acme, *, has_http_redirect: bool) -> Iterator[tuple[Path, str]]:
    """Find what does not fit together."""
    seen: set[str] = set()
    for at, domain in enumerate(acme.domains):
        if domain in seen:
            yield (*where, "domains", at), f"{domain!r} is listed twice"
        seen.add(domain)
    if acme.challenge == "http-01" and not has_http_redirect:
        yield (
            (*where, "challenge"),
            "http-01 is served by listen.http_redirect, which is not given: add it, or use "
            "tls-alpn-01",
        )
    if acme.staging and acme.directory not in {LETS_ENCRYPT, LETS_ENCRYPT_STAGING}:
        yield (
            (*where, "staging"),
            "is for Let's Encrypt: with another CA, set directory to that of its staging "
            "environment",
        )


def find_acme_warnings(where: Path, acme: Acme) -> Iterator[tuple[Path, str]]:
    """Find names that no public CA would issue for."""
    if acme.directory != LETS_ENCRYPT:
        return
    for at, domain in enumerate(acme.domains):
        is_special = any(f".{domain}".endswith(f".{name}") for name in SPECIAL_DOMAINS)
        if is_special or "." not in domain:
            yield (
                (*where, "domains", at),
                f"no public CA issues for {domain!r}: expected a name in the public DNS",
            )
