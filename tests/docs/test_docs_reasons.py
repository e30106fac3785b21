"""docs/reference/reasons.md lists the reasons that the code gives, with their statuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from support.deadlines import scaled
from support.reasons_in_code import find_reasons

from gateway.history.events import LOGIN_REASONS
from gateway.http.errors import PROBLEM_TYPES, render_problem

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"<a [^>]*></a>", "", (ROOT / "docs" / "reference" / "reasons.md").read_text())
ROWS = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| ([^|]*) \| (.*) \| (.*) \|$", TEXT, re.MULTILINE)
DOCUMENTED = {code: row[1] for row in ROWS for code in re.findall(r"`([a-z_]+)`", row[0])}
NO_RESPONSE = {"proxy_protocol"}
"""Labels of a metric: the connection is closed without a response."""


def test_each_reason_is_documented_and_each_documented_reason_is_given() -> None:
    assert len(find_reasons()) > 90
    assert set(find_reasons()) - set(DOCUMENTED) == set(), "add them to reasons.toml"
    assert set(DOCUMENTED) - set(find_reasons()) - NO_RESPONSE == set(), "nothing gives these"


def test_each_reason_is_documented_once() -> None:
    codes = [code for row in ROWS for code in re.findall(r"`([a-z_]+)`", row[0])]
    assert len(codes) == len(set(codes)), [code for code in codes if codes.count(code) > 1]


def test_each_reason_has_the_status_that_its_class_says() -> None:
    for code, statuses in find_reasons().items():
        documented = set(map(int, re.findall(r"[0-9]{3}", DOCUMENTED[code])))
        # 500 is what a class says that is given its status where it is raised.
        assert statuses - {500} <= documented, code


def test_each_reason_has_a_cause_and_something_to_do() -> None:
    for codes, status, cause, remedy in ROWS:
        assert status, codes
        assert cause.endswith((".", "`")), codes
        assert remedy, codes


def test_reasons_by_which_events_know_a_failed_sign_in_are_given() -> None:
    assert LOGIN_REASONS - set(find_reasons()) == set()


def test_the_page_is_what_the_console_explains_events_by() -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / ".ci" / "reasons_reference.py", "--check"],
        capture_output=True, text=True, timeout=scaled(60),
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}: run `make reference`"


def test_each_reason_is_where_the_type_of_a_problem_leads() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["site_url"]
    assert f"{site}reference/reasons/#" == PROBLEM_TYPES
    page = (ROOT / "docs" / "reference" / "reasons.md").read_text()
    assert set(re.findall(r'<a id="([a-z_]+)"></a>', page)) == set(DOCUMENTED)
    problem = json.loads(render_problem(401, "expired", "The token is not valid.", "1"))
    assert problem["type"] == f"{PROBLEM_TYPES}expired"
