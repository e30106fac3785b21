"""docs/reference/reasons.md lists the reasons that the code gives, with their statuses."""

from __future__ import annotations

import re
from pathlib import Path

from support.reasons_in_code import find_reasons

from gateway.history.events import LOGIN_REASONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reference" / "reasons.md").read_text()
ROWS = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| ([^|]*) \| (.*) \| (.*) \|$", TEXT, re.MULTILINE)
DOCUMENTED = {code: row[1] for row in ROWS for code in re.findall(r"`([a-z_]+)`", row[0])}
REASONS = find_reasons()
NO_RESPONSE = {"proxy_protocol"}
"""Labels of a metric: the connection is closed without a response."""


def test_each_reason_is_documented_and_each_documented_reason_is_given() -> None:
    assert len(REASONS) > 90
    assert set(REASONS) - set(DOCUMENTED) == set(), "add them to docs/reference/reasons.md"
    assert set(DOCUMENTED) - set(REASONS) - NO_RESPONSE == set(), "nothing gives these"


def test_each_reason_is_documented_once() -> None:
    codes = [code for row in ROWS for code in re.findall(r"`([a-z_]+)`", row[0])]
    assert len(codes) == len(set(codes)), [code for code in codes if codes.count(code) > 1]


def test_each_reason_has_the_status_that_its_class_says() -> None:
    for code, statuses in REASONS.items():
        documented = set(map(int, re.findall(r"[0-9]{3}", DOCUMENTED[code])))
        # 500 is what a class says that is given its status where it is raised.
        assert statuses - {500} <= documented, code


def test_each_reason_has_a_cause_and_something_to_do() -> None:
    for codes, status, cause, remedy in ROWS:
        assert status, codes
        assert cause.endswith((".", "`")), codes
        assert remedy, codes


def test_reasons_by_which_events_know_a_failed_sign_in_are_given() -> None:
    assert LOGIN_REASONS - set(REASONS) == set()
