"""Writes the bill of materials of an environment that the gateway is installed in, as CycloneDX.

python .ci/sbom.py VENV FILE
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASK = """
import importlib.metadata as m, json
print(json.dumps([
    {"name": each.metadata["Name"], "version": each.version, "license": each.metadata["License"]}
    for each in m.distributions()
]))
"""


def main() -> int:
    """Run cyclonedx-py, and add what it can't know."""
    venv, file = sys.argv[1], Path(sys.argv[2])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    command = [sys.executable, "-m", "cyclonedx_py", "environment"]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"]
    command += ["--output-reproducible", "--output-file", str(file), venv]
    subprocess.run(command, check=True)  # noqa: S603
    requested = [f"{venv}/bin/python", "-c", ASK]
    done = subprocess.run(requested, check=True, capture_output=True, text=True)  # noqa: S603
    installed = {each["name"]: each for each in json.loads(done.stdout)}
    # pyproject.toml does not say it: it comes from the package.
    version = installed[project]["version"]
    document = json.loads(file.read_text())
    for one in document["components"]:
        # Licences in words, which are no identifier of SPDX, are left out otherwise.
        words = installed[one["name"]]["license"]
        if words and not one.get("licenses"):
            one["licenses"] = [{"license": {"name": words}}]
    component = document["metadata"]["component"]
    component["version"] = version
    component["purl"] = f"pkg:pypi/{project}@{version}"
    file.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
