"""Workloads: what a platform says of them, mapped to clients of the provider."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from gateway.config.claims import ClaimValues, RouteClaims
from gateway.config.problems import Path
from gateway.config.scalars import (
    Audience,
    Bool,
    File,
    HostName,
    Name,
    Scope,
    Section,
)
from gateway.oauth.workloads.subjects import check_subject_pattern
from gateway.units import PositiveDuration

Finding = tuple[Path, str]
NO_CERTIFICATES = (
    "has no effect: certificates of clients get here by listen.tls.client_ca or "
    "provider.client_certificate_header"
)
_CLIENT_ID = re.compile(r"(?=[!-~]*[A-Za-z0-9])[!-9;-~]{1,255}")


def _check_client_id(client_id: str) -> str:
    if not _CLIENT_ID.fullmatch(client_id):
        raise ValueError(
            "expected 1 to 255 visible ASCII characters without a colon, one of them a letter or "
            "digit"
        )
    return client_id


ClientId = Annotated[str, AfterValidator(_check_client_id)]
SubjectPattern = Annotated[str, AfterValidator(check_subject_pattern)]


class WorkloadConfig(Section):
    """Workloads that need no secret: who they are by their platform, and what they get."""

    issuer: Name | None = Field(
        None, description="Name of the entry of `jwt_issuers` that signs their tokens."
    )
    trust_domain: HostName | None = Field(
        None,
        description=(
            "In place of `issuer`: SPIFFE trust domain of their certificates (X.509-SVIDs), which "
            "they show by mTLS."
        ),
    )
    ca: File | None = Field(
        None,
        description=(
            "File with the CAs of the trust domain (PEM). Needed where `listen.tls.client_ca` "
            "holds others, too."
        ),
    )
    subject: SubjectPattern = Field(
        description=(
            "Their `sub`, or their SPIFFE ID, case-sensitive. `*` stands for characters other than "
            "`:` and `/`; `**`, at the end, for all that follows."
        )
    )
    claims: RouteClaims = Field(
        {},
        max_length=64,
        description=(
            "Claims that their tokens must have beside that, as `routes[].claims`, such as "
            "`ref_protected` of GitLab or `repository_owner_id` of GitHub."
        ),
    )
    client_id: ClientId = Field(
        description=(
            "Client that they are. It need not be registered: it is added with its first token."
        )
    )
    scopes: list[Scope] | None = Field(
        None,
        description=(
            "Scopes that their tokens may have, and have if the request names none. Default: those "
            "that the client is registered for."
        ),
    )
    audiences: list[Audience] = Field(
        [],
        description=(
            "Resources that their tokens may be for, and are for if the request names none; "
            "empty as for other clients."
        ),
    )
    token_ttl: PositiveDuration | None = Field(
        None, description="Lifetime of their access tokens; default: `provider.token_ttl`."
    )
    single_use: Bool | None = Field(
        None,
        description=(
            "Whether a token with a `jti` is accepted once. Default: yes, but for service account "
            "tokens of Kubernetes, which pods read from a file until the kubelet replaces it."
        ),
    )


def check_workloads(
    tree: Mapping[str, Any], workloads: Mapping[int, WorkloadConfig], scopes: Collection[str]
) -> Iterator[Finding]:
    """Each rule of `workloads` that does not fit the rest of the configuration. Sections that a
    command leaves out, as `jwt_issuers` and `listen`, are not missed."""
    names = names_of_issuers(tree)
    for at, rule in workloads.items():
        where: Path = ("workloads", at)
        if (rule.issuer is None) == (rule.trust_domain is None):
            yield where, "expected either issuer or trust_domain"
        if rule.issuer is not None and rule.issuer not in names and "jwt_issuers" in tree:
            yield (*where, "issuer"), unknown_issuer(rule.issuer)
        for number, scope in enumerate(rule.scopes or ()):
            if scope not in scopes:
                path = (*where, "scopes", number)
                yield path, f"scope {scope!r} is not one of provider.scopes"
        for name, values in rule.claims.items():
            if isinstance(values, ClaimValues) and not values.any and not values.all:
                yield (*where, "claims", name), "expected values, or any or all with values in it"
        yield from _check_trust_domain(where, rule, tree)
    yield from _check_pairs(workloads)


def names_of_issuers(tree: Mapping[str, Any]) -> set[str]:
    """The names of the entries of `jwt_issuers`."""
    issuers = tree.get("jwt_issuers")
    return {
        str(issuer.get("name"))
        for issuer in (issuers if isinstance(issuers, list) else [])
        if isinstance(issuer, dict)
    }


def unknown_issuer(name: str) -> str:
    """Return the problem of a rule whose issuer is not configured."""
    return f"issuer {name!r} is not the name of an entry of jwt_issuers"


def _check_trust_domain(
    where: Path, rule: WorkloadConfig, tree: Mapping[str, Any]
) -> Iterator[Finding]:
    domain = rule.trust_domain
    if domain is None:
        if rule.ca is not None:
            yield (*where, "ca"), "has no effect without trust_domain"
        return
    if domain != domain.lower():
        yield (*where, "trust_domain"), "must be lower case"
    if not rule.subject.startswith(f"spiffe://{domain}/"):
        yield (
            (*where, "subject"),
            f"expected a SPIFFE ID of the trust domain: spiffe://{domain}/...",
        )
    if rule.claims:
        yield (*where, "claims"), "has no effect with trust_domain: a certificate has no claims"
    if rule.single_use is not None:
        yield (*where, "single_use"), "has no effect with trust_domain: a certificate has no jti"
    if "listen" in tree and not _takes_certificates(tree):
        yield (*where, "trust_domain"), NO_CERTIFICATES


def _takes_certificates(tree: Mapping[str, Any]) -> bool:
    listen, provider = tree.get("listen"), tree.get("provider")
    tls = listen.get("tls") if isinstance(listen, dict) else None
    has_ca = isinstance(tls, dict) and bool(tls.get("client_ca"))
    has_header = isinstance(provider, dict) and bool(provider.get("client_certificate_header"))
    return has_ca or has_header


def _check_pairs(workloads: Mapping[int, WorkloadConfig]) -> Iterator[Finding]:
    domains = {rule.trust_domain for rule in workloads.values() if rule.trust_domain}
    for at, rule in workloads.items():
        if rule.trust_domain and rule.ca is None and len(domains) > 1:
            yield (
                ("workloads", at),
                "needs ca: with several trust domains, the CA of one could name workloads of "
                "another",
            )
    for (first, one), (second, other) in itertools.combinations(workloads.items(), 2):
        same = ("issuer", "trust_domain", "subject", "claims", "client_id")
        if all(getattr(one, key) == getattr(other, key) for key in same):
            yield (
                ("workloads", second),
                f"is for the subject and the client of workloads[{first}] too, which comes first",
            )
