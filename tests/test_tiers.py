"""Which tests are slow, and why, is told where people look."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.tiers import SLOW, slow

TESTS = Path(__file__).parent


def test_contributing_lists_each_kind_of_slow_test() -> None:
    text = (TESTS.parent / "CONTRIBUTING.md").read_text()
    table = text.partition("| Kind | What takes long |\n|---|---|\n")[2].partition("\n\n")[0]
    assert dict(re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE)) == SLOW


def test_each_kind_of_slow_test_is_in_use_and_none_goes_without_a_reason() -> None:
    sources = [path.read_text() for path in TESTS.rglob("test_*.py")]
    others = [*TESTS.rglob("conftest.py"), TESTS / "support" / "protocols.py"]
    sources += [path.read_text() for path in others]
    used = {kind for source in sources for kind in re.findall(r'\bslow\("([^"]+)"\)', source)}
    assert used == set(SLOW)
    assert not any("mark." + "slow" in source for source in sources)
    with pytest.raises(KeyError):
        slow("")
