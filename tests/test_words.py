"""The check of words finds private words where a person reads them, and only there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.programs import needs

pytestmark = needs("git")
CHECK = Path(__file__).parents[1] / ".ci" / "words.py"


def check(directory: Path, name: str, text: str) -> list[str]:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=directory, check=True)
    subprocess.run(["git", "add", "-A"], cwd=directory, check=True)
    done = subprocess.run(
        [sys.executable, CHECK, "-C", directory], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return re.findall(rf"^{re.escape(name)}:\d+: '([^']+)'", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("docs/a.md", "The gateway answers 404.", ["answers"]),
        ("docs/a.md", "See `answer` and [a](answer.md).\n\n```\nanswer\n```\n", []),
        ("gateway/a.py", '"""What nobody asked for."""\n', ["nobody", "What"]),
        ("gateway/a.py", "x = 1  # told by the store\n", ["told"]),
        ("gateway/a.py", 'raise ValueError("nobody is there")\n', ["nobody"]),
        ("gateway/a.py", 'REASONS = {"answer", "told"}\n', []),
        ("gateway/a.py", "def send_answer() -> None: ...\n", ["answer"]),
        ("tests/a.py", '"""What nobody asked for."""\n', []),
        ("tests/a.py", "def test_it_answers() -> None: ...\n", ["answers"]),
        ("gateway/t/a.html", '<p class="told">It is told by {{ told }}.</p>', ["told"]),
        ("config/a.yaml", "port: 0  # chosen by chance\n", ["by chance"]),
        ("gateway/a.py", '"""Return the response that a client receives."""\n', []),
    ],
)
def test_private_words_are_found_where_a_person_reads_them(
    tmp_path: Path, name: str, text: str, found: list[str]
) -> None:
    assert check(tmp_path, name, text) == found
