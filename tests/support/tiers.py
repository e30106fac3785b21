"""The two tiers of tests: `make test` runs the fast one, `make slow` the other, `make check` both.

`python -m support.tiers` tells how many tests are in which, and why the slow ones are.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from pathlib import Path

import pytest

SLOW = {
    "2 GiB": "4 GiB pass through loopback",
    "ACME": "a CA issues and renews",
    "Atheris": "a search by coverage in each reader of the gateway",
    "bench": "a load generator is compiled, and each program is measured for a second",
    "Chromium": "a browser of 300 MB is driven through the console",
    "compiled": "asks the wheel that mypyc compiled, in `make compiled`",
    "differential": "a million mutated cases for each reader of the codec",
    "environment": "virtual environments are set up with pip",
    "faults": "the traffic of a busy day goes through each kind of fault, until all is well again",
    "hashes": "hundreds of secrets are hashed, each as slowly as it has to be",
    "image": "its packages come from the package index, and it is built and compiled",
    "Kubernetes": "every object against the schemas of several versions of Kubernetes",
    "npm": "OAuth clients are installed from the npm registry",
    "patterns": "every regular expression on long hostile texts, up to a limit of ten CPU seconds",
    "pods": "the processes of a pod are started, changed, rolled and stopped",
    "PostgreSQL": "a second server copies the first and takes over, or PgBouncer stands between",
    "Prometheus": "a Prometheus scrapes a gateway in trouble, and promtool tries each alert",
    "protocols": "suites once more over HTTP/2: of upstreams, and but for first cases, of clients",
    "proxies": "Caddy and HAProxy ask the gateway, too; nginx does so in the fast tier",
    "pytest": "runs of pytest within a test",
    "Redis Cluster": "three servers, which take seconds to form a cluster",
    "schemathesis": "hundreds of requests made up from the OpenAPI document",
    "SDK": "an official client runs the whole flow, in processes of its own",
    "tutorials": "each command of a page is typed, or a demo is run, with its servers",
    "under load": "reloads, signals and killed workers, while clients keep the gateway busy",
}
"""Why tests are slow: CONTRIBUTING.md has the same list."""


def slow(kind: str) -> pytest.MarkDecorator:
    """The mark of a test in the slow tier; `kind` is one of `SLOW`."""
    return pytest.mark.slow(reason=f"{kind}: {SLOW[kind]}")


_HAS_SLOW = re.compile(r"\bslow\(|\b(?:both|both_upstream|each|all)_protocols?\b")
_IS_ALL_SLOW = re.compile(r"^pytestmark = (\[[^\]]*?)?\bslow\(", re.MULTILINE)


def is_of_other_tier(path: Path, marks: str) -> bool:
    """Whether no test of a module can be among those that `-m marks` selects."""
    if path.suffix != ".py" or marks not in ("slow", "not slow"):
        return False
    source = path.read_text()
    if marks == "not slow":
        return _IS_ALL_SLOW.search(source) is not None
    conftest = path.parent / "conftest.py"  # parameters of its fixtures may be slow
    return not _HAS_SLOW.search(source + (conftest.read_text() if conftest.exists() else ""))


class _Counting:
    """Counts what pytest collects."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            mark = item.get_closest_marker("slow")
            self.counts["fast" if mark is None else f"slow, {mark.kwargs['reason']}"] += 1


def main() -> int:
    """Print the tiers; returns pytest's status."""
    counting = _Counting()
    with contextlib.redirect_stdout(io.StringIO()) as reported:
        status = pytest.main(["--collect-only", "-q"], plugins=[counting])
    if status:
        print(reported.getvalue())
    for tier, count in sorted(counting.counts.items()):
        print(f"{count:6} {tier}")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
