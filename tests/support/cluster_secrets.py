"""The Secrets that docs/guides/kubernetes.md says to make, with values for tests."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from support.deploy_tools import ROOT, Object
from support.jose_values import make_certificate

DOCUMENT = ROOT / "docs" / "guides" / "kubernetes.md"


def documented_secrets() -> dict[str, dict[str, str]]:
    """Each Secret that the document makes by `kubectl create secret`, by name."""
    text = DOCUMENT.read_text().replace("\\\n", " ")
    secrets: dict[str, dict[str, str]] = {}
    for name, options in re.findall(r"kubectl create secret generic ([\w-]+) (.*)", text):
        keys = re.findall(r"--from-(?:literal|file)=([\w.-]+)", options)
        secrets.setdefault(name, {}).update({key: f"{name}-{key}-".ljust(43, "0") for key in keys})
    for name in re.findall(r"kubectl create secret tls ([\w-]+) ", text):
        secrets[name] = tls_secret()
    secrets["gateway"]["store-url"] = "redis://gateway:secret@gateway-redis:6379/0"
    return secrets


def tls_secret() -> dict[str, str]:
    """A Secret of kind kubernetes.io/tls, for localhost; another one at each call."""
    with tempfile.TemporaryDirectory() as directory:
        made = make_certificate(Path(directory), "gateway")
        return {"tls.crt": made.cert.read_text(), "tls.key": made.key.read_text()}


def made_by_chart(found: list[Object]) -> dict[str, dict[str, str]]:
    """The Secrets among rendered objects, their values replaced."""
    return {
        one["metadata"]["name"]: {key: f"chart-{key}-".ljust(43, "0") for key in one["data"]}
        for one in found
        if one["kind"] == "Secret"
    }


def config_maps(found: list[Object]) -> dict[str, dict[str, str]]:
    """The ConfigMaps among rendered objects."""
    return {one["metadata"]["name"]: one["data"] for one in found if one["kind"] == "ConfigMap"}
