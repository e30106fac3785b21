"""What a release needs: one version everywhere, and notes for its users.

    python .ci/release.py check [TAG]    # exits with 1 and names each place that differs
    python .ci/release.py notes VERSION  # prints the section of CHANGELOG.md

Needs nothing but Python's standard library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = {
    "Dockerfile": r"bearer-gateway:([0-9.]+)",
    "compose.yaml": r"bearer-gateway:([0-9.]+)",
    "config/gateway.schema.json": r"urn:bearer-gateway:configuration:([0-9.]+)",
    "deploy/helm/bearer-gateway/Chart.yaml": r"ersion: \"?([0-9]+\.[0-9]+\.[0-9]+)",
    "deploy/k8s/overlays/edge/kustomization.yaml": r"newTag: ([0-9.]+)",
    "deploy/k8s/overlays/sidecar/kustomization.yaml": r"newTag: ([0-9.]+)",
    "docs/tutorials/kubernetes-sidecar.md": r"bearer-gateway:([0-9.]+)|newTag: ([0-9.]+)",
}
"""Files that name the version, and where in them."""


def version() -> str:
    """The version of the package."""
    (found,) = re.findall(r'__version__ = "(.*)"', (ROOT / "gateway" / "__init__.py").read_text())
    return str(found)


def problems(tag: str = "") -> Iterator[str]:
    """Each place that says another version than the package."""
    wanted = version()
    if tag and tag != f"v{wanted}":
        yield f"the tag is {tag}, and gateway/__init__.py has {wanted}"
    for name, pattern in PLACES.items():
        found = {
            one for groups in re.finditer(pattern, (ROOT / name).read_text())
            for one in groups.groups() if one
        }  # fmt: skip
        if found != {wanted}:
            yield f"{name}: {', '.join(sorted(found)) or 'no version'}, expected {wanted}"
    if not re.search(rf"^## \[{re.escape(wanted)}\] - \d{{4}}-\d\d-\d\d$", changelog(), re.M):
        yield f"CHANGELOG.md: no section [{wanted}] with a date"


def changelog() -> str:
    """The text of CHANGELOG.md."""
    return (ROOT / "CHANGELOG.md").read_text()


def notes(wanted: str) -> str:
    """The section of a version, without its heading."""
    found = re.search(
        rf"^## \[{re.escape(wanted)}\].*?\n(.*?)(?=^## \[|\Z)", changelog(), re.M | re.S
    )
    if found is None:
        raise SystemExit(f"CHANGELOG.md has no section [{wanted}]")
    return found[1].strip() + "\n"


def main(arguments: list[str]) -> int:
    """Run; returns the exit status."""
    match arguments:
        case ["notes", wanted]:
            print(notes(wanted), end="")
            return 0
        case ["check", *tags]:
            found = list(problems(*tags[:1]))
            print(*found, sep="\n", end="\n" if found else "")
            return 1 if found else 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
