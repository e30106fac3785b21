"""Explains which client a workload is: which entry of `workloads` fits its subject, and why the
others do not."""

from __future__ import annotations

from typing import Any

from gateway.app.build.claims import describe_claims
from gateway.config import Config
from gateway.config.workloads import WorkloadConfig
from gateway.oauth.workloads.subjects import SubjectPattern


def explain_workload(config: Config, subject: str, issuer: str | None = None) -> dict[str, Any]:
    """Explain which entry fits a subject of an issuer, or of any. Nothing is fetched."""
    others: list[dict[str, str]] = []
    chosen: tuple[int, WorkloadConfig] | None = None
    for at, rule in enumerate(config.workloads):
        why_not = _why_not(rule, subject, issuer)
        if not why_not and chosen is not None:
            why_not = f"comes after workloads[{chosen[0]}]; a request with its client_id gets it"
            if rule.client_id == chosen[1].client_id:
                why_not = f"comes after workloads[{chosen[0]}]"
        if why_not:
            others.append({"name": f"workloads[{at}]", "why_not": why_not})
        else:
            chosen = at, rule
    explanation: dict[str, Any] = {
        "subject": subject, "workload": None, "client_id": None, "others": others,
    }  # fmt: skip
    if chosen is None:
        return explanation
    at, rule = chosen
    return explanation | {
        "workload": f"workloads[{at}]",
        "client_id": rule.client_id,
        "scopes": rule.scopes,
        "audiences": rule.audiences,
        "token_ttl": rule.token_ttl or config.provider.token_ttl,
        "claims": describe_claims(rule),
        "proof": (
            f"a token of issuer {rule.issuer}"
            if rule.issuer is not None
            else f"a certificate of trust domain {rule.trust_domain}"
        ),
    }


def _why_not(rule: WorkloadConfig, subject: str, issuer: str | None) -> str:
    if issuer is not None and issuer not in {rule.issuer, rule.trust_domain}:
        return f"is for {rule.issuer or rule.trust_domain}"
    if not SubjectPattern(rule.subject).matches(subject):
        return f"the subject is not {rule.subject}"
    return ""
