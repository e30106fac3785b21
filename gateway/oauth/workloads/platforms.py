"""Reads what platforms say of a workload beside its subject: Kubernetes, GitHub, GitLab."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

KUBERNETES = "kubernetes.io"
"""The claim in which Kubernetes says what a service account token is bound to."""
MAX_DETAIL_CHARS = 200
_PIPELINES = (
    "repository", "workflow_ref", "environment", "run_id",
    "project_path", "ref", "pipeline_id", "job_id", "runner_id",
)  # fmt: skip
"""Claims of GitHub Actions and GitLab CI."""


def is_service_account(claims: Mapping[str, Any]) -> bool:
    """Whether a token is one of a service account, as Kubernetes issues them."""
    return isinstance(claims.get(KUBERNETES), Mapping)


def describe_workload(claims: Mapping[str, Any]) -> dict[str, str]:
    """Namespace, pod and node, or repository and run, as far as the claims hold them."""
    return {name: value[:MAX_DETAIL_CHARS] for name, value in _details(claims) if _is_plain(value)}


def _details(claims: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    bound = claims.get(KUBERNETES)
    if isinstance(bound, Mapping):
        yield "namespace", str(bound.get("namespace") or "")
        for kind in ("pod", "node"):
            named = bound.get(kind)
            if isinstance(named, Mapping):
                yield kind, str(named.get("name") or "")
                yield f"{kind}_uid", str(named.get("uid") or "")
        return
    for name in _PIPELINES:
        value = claims.get(name)
        if isinstance(value, str | int):
            yield name, str(value)


def _is_plain(value: str) -> bool:
    """Whether a value can stand in a line of a log."""
    return bool(value) and value.isprintable() and " " not in value
