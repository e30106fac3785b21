"""Which workloads are which clients, and what they get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.oauth.claim_rules import ClaimRule, Claims
from gateway.oauth.workloads.subjects import SubjectPattern, trust_domain_of


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload that proved who it is."""

    issuer: str
    """Name of the issuer of its token; the trust domain of a certificate."""
    subject: str
    iss: str
    """The issuer as tokens name it."""
    expires_at: float
    """Unix time, seconds, at which what it showed ends."""
    details: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the platform says of it, for the audit log: namespace, pod, node, pipeline..."""

    @property
    def claim(self) -> dict[str, str]:
        """The claim of tokens that are issued to it."""
        return {"iss": self.iss, "sub": self.subject}

    @property
    def described(self) -> str:
        """For operators to read: issuer, subject and details."""
        details = "".join(f" {name}={value}" for name, value in self.details.items())
        return f"{self.issuer} {self.subject}{details}"


@dataclass(frozen=True, slots=True)
class WorkloadRule:
    """Maps workloads to a client."""

    issuer: str | None
    """Name of the issuer of their tokens; None where they show certificates."""
    trust_domain: str | None
    """SPIFFE trust domain of their certificates."""
    ca: bytes = field(repr=False)
    """PEM with the CA certificates of the trust domain; empty for what the handshake trusts."""
    subject: SubjectPattern
    claims: tuple[ClaimRule, ...]
    """What the token must say beside that."""
    client_id: str
    scopes: tuple[str, ...] | None
    """None for those of the registered client."""
    audiences: tuple[str, ...]
    token_ttl_s: float | None
    single_use: bool | None

    @property
    def spiffe_domain(self) -> str | None:
        """The trust domain of its subjects."""
        return trust_domain_of(self.subject.text.replace("*", "x"))


class WorkloadRules:
    """All rules, in order."""

    def __init__(self, rules: Sequence[WorkloadRule]) -> None:
        self._rules = tuple(rules)
        self.issuers = frozenset(rule.issuer for rule in rules if rule.issuer is not None)
        """Names of the issuers that have rules."""
        self._scopes: dict[str, tuple[str, ...]] = {}
        for rule in rules:
            known = self._scopes.get(rule.client_id, ())
            self._scopes[rule.client_id] = tuple(dict.fromkeys((*known, *(rule.scopes or ()))))

    def __len__(self) -> int:
        return len(self._rules)

    @property
    def has_certificates(self) -> bool:
        """Whether one is for certificates."""
        return any(rule.trust_domain is not None for rule in self._rules)

    def find(
        self, issuer: str, subject: str, client_id: str = "", claims: Claims | None = None
    ) -> WorkloadRule | None:
        """The first rule for a subject of an issuer, and for a client if the request names one;
        without `claims`, whatever the token says beside that."""

        def is_for(rule: WorkloadRule) -> bool:
            return rule.issuer == issuer and (
                claims is None or all(one.holds(claims) for one in rule.claims)
            )

        return self._first(client_id, is_for, subject)

    def find_by_domain(self, domain: str, subject: str, client_id: str = "") -> WorkloadRule | None:
        """The first rule for a certificate of a trust domain."""
        return self._first(client_id, lambda rule: rule.trust_domain == domain, subject)

    def issuer_of_domain(self, domain: str) -> str | None:
        """The issuer whose rules name subjects of a trust domain: it signs JWT-SVIDs without
        `iss`."""
        return next(
            (
                rule.issuer
                for rule in self._rules
                if rule.issuer is not None and rule.spiffe_domain == domain
            ),
            None,
        )

    def scopes_of(self, client_id: str) -> tuple[str, ...]:
        """All scopes that rules give a client."""
        return self._scopes.get(client_id, ())

    def _first(
        self, client_id: str, is_for: Callable[[WorkloadRule], bool], subject: str
    ) -> WorkloadRule | None:
        for rule in self._rules:
            if client_id not in {"", rule.client_id}:
                continue
            if is_for(rule) and rule.subject.matches(subject):
                return rule
        return None
