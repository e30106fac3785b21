"""configuration.md is what the schema says, and other documents name keys that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import scaled

from gateway.app.reloading.changes import NEEDS_RESTART, NEEDS_RESTART_TO_COME_OR_GO
from gateway.config import parse_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "configuration.md").read_text()
ROWS = re.findall(
    r"^\| `([\w.\[\]]+)` \| (.*?) \| (`.*?`|required|) \| (.*) \|$", PAGE, re.MULTILINE
)
KEYS = {key for key, *_ in ROWS}
SECTIONS = {key.split(".")[0].removesuffix("[]") for key in KEYS}
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def test_the_tables_are_what_the_schema_says() -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / ".ci" / "config_reference.py", "--check"],
        capture_output=True, text=True, timeout=scaled(60),
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}: run `make reference`"
    assert len(KEYS) > 200


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_each_key_that_a_document_names_is_one(document: Path) -> None:
    for named in re.findall(
        r"`([a-z_]+(?:\[\])?(?:\.[A-Za-z_*]+(?:\[\])?)+)`", document.read_text()
    ):
        first = named.split(".")[0].removesuffix("[]")
        if first in SECTIONS and not re.search(r"\.(yaml|md|py|com|json|sock)$", named):
            key = re.sub(r"^upstreams\.(\*|[a-z]+)(?=\.|$)", "upstreams.NAME", named)
            assert key in KEYS or any(one.startswith((f"{key}.", f"{key}[]")) for one in KEYS), (
                named
            )


def test_the_table_of_common_keys_has_the_defaults_of_the_schema() -> None:
    defaults = {key: default.strip("`") for key, _, default, _ in ROWS}
    text = PAGE.partition("\n## The most common keys\n")[2].partition("\n## ")[0]
    checked = 0
    for keys, shown in re.findall(r"^\| (`[^|]*`) \| (`[^|]*`) \| ", text, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", keys)
        section = names[0].rpartition(".")[0]
        wanted = [name if not name.startswith(".") else section + name for name in names]
        given = re.findall(r"`([^`]+)`", shown)
        if all(name in defaults for name in wanted) and len(given) == len(wanted):
            assert given == [defaults[name] for name in wanted], keys
            checked += len(given)
    assert checked > 10


def test_each_example_is_listed() -> None:
    examples = {path.name for path in (ROOT / "config").glob("*.yaml")}
    assert set(re.findall(r"\]\(\.\./\.\./config/([\w-]+\.yaml)\)", PAGE)) == examples


def test_the_errors_that_the_page_shows_are_those_that_are_reported(tmp_path: Path) -> None:
    shown = re.findall(r"^    gateway\.yaml:[0-9]+: (.*)$", PAGE, re.MULTILINE)
    text = json.dumps(_with_mistakes())
    with pytest.raises(Exception, match="unknown key") as error:
        parse_config(text, file="gateway.yaml", environ={})
    reported = str(error.value)
    assert len(shown) == 3
    for line in shown:
        assert line in reported


def _with_mistakes() -> dict[str, Any]:
    return {
        "listen": {"prot": 1},
        "provider": {"scopes": ["orders:read"], "registration": {"mode": "open"}},
        "upstreams": {"orders": {"targets": ["http://127.0.0.1:9"]}},
        "routes": [
            {
                "name": "a", "match": {"path": "/a"}, "scopes": ["oders:read"],
                "upstream": "order",
            }
        ],
    }  # fmt: skip


def test_what_needs_a_restart_is_listed() -> None:
    text = (
        (ROOT / "docs" / "guides" / "reload.md").read_text().partition("## What needs a restart")[2]
    )
    listed = re.findall(r"`([a-z_.]+)`", text.partition("\n## ")[0])
    keys = [".".join(map(str, path)) for path in (*NEEDS_RESTART, *NEEDS_RESTART_TO_COME_OR_GO)]
    assert sorted(listed) == sorted(keys)
