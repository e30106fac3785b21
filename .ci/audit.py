"""Asks PyPI for known vulnerabilities of what is locked, and tells three ends apart.

    python .ci/audit.py [--lenient] LOCK...

Status 1 where there are any. Where PyPI could not be asked, nothing is known: status 3, or 0 and a
word about it with `--lenient`, so that checks work without a network, too. (pip-audit itself says
"no known vulnerabilities found" of packages that it could not ask about.)

No scanner of packages sees a library that is bundled in one: the version of libnghttp2 in the
locked engine of HTTP/2 is held to `MIN_NGHTTP2` (`gateway/http/h2.py`) here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gateway.http.h2 import BUNDLED, MIN_NGHTTP2


def main() -> int:
    """Run pip-audit; returns the exit status."""
    lenient = "--lenient" in sys.argv
    locks = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes"]
    command += ["--progress-spinner", "off", "--format", "json", "--timeout", "5"]
    for lock in locks:
        command += ["-r", lock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        report = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["no report"]
        report = {"dependencies": [{"name": "everything", "skip_reason": lines[-1]}]}
    status, text = verdict(report)
    print(text)
    for lock in locks:
        if problem := bundled_problem(Path(lock).read_text("utf-8")):
            status = 1
            print(problem)
    return 0 if lenient and status == 3 else status


def verdict(report: dict[str, Any]) -> tuple[int, str]:
    """Status and text for a report of pip-audit."""
    found, skipped, audited = [], [], 0
    for dependency in report["dependencies"]:
        if "skip_reason" in dependency:
            skipped.append(dependency)
            continue
        audited += 1
        for one in dependency["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version"
            found.append(
                f"{dependency['name']} {dependency['version']}: {one['id']}, fixed in {fixed}"
            )
    if found:
        return 1, "audit: known vulnerabilities\n" + "\n".join(found)
    if skipped:
        reason = skipped[0]["skip_reason"]
        return 3, f"audit: NOT DONE for {len(skipped)} packages; PyPI could not be asked ({reason})"
    return 0, f"audit: no known vulnerability in {audited} packages"


def bundled_problem(lock: str) -> str:
    """Why the library that is bundled in a locked package must not be used; empty for none."""
    for package in re.findall(r"^ngh2==([^\s;]+)", lock, re.MULTILINE):
        bundled = BUNDLED.get(package)
        if bundled is None:
            return f"audit: which libnghttp2 is in ngh2 {package}? Note it in gateway/http/h2.py"
        if tuple(map(int, bundled.split("."))) < MIN_NGHTTP2:
            least = ".".join(map(str, MIN_NGHTTP2))
            return f"audit: libnghttp2 {bundled} in ngh2 {package} is older than {least}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
