"""Completion of commands and options, in the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.deadlines import scaled

from gateway.cli import main

CASES = [
    ("gateway cl", {"client"}),
    ("gateway client cr", {"create"}),
    ("gateway -c other.yaml client sh", {"show"}),
    ("gateway client create --sc", {"--scope"}),
    ("gateway client create shop --re", {"--redirect-uri", "--replace"}),
    ("gateway admin token re", {"revoke"}),
    ("gateway token is", {"issue"}),
]


def completion(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The script for a shell."""
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def run(*command: str, script: str) -> set[str]:
    """The first words of the lines that a shell prints for a script."""
    done = subprocess.run(
        [*command, script], capture_output=True, text=True, timeout=scaled(60), check=True
    )
    assert done.stderr == ""
    return {line.split()[0] for line in done.stdout.splitlines()}


def shell(name: str) -> str:
    """Path of a shell; the test is skipped where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}")
    return found


@pytest.mark.parametrize(("typed", "completed"), CASES)
def test_bash_completes(
    typed: str, completed: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = typed.split()
    script = (
        completion("bash", capsys)
        + f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _gateway\n"
        + 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    assert run(shell("bash"), "--norc", "-c", script=script) == completed


@pytest.mark.parametrize(("typed", "completed"), CASES)
def test_fish_completes(
    typed: str,
    completed: set[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    script = completion("fish", capsys) + f"complete -C '{typed}'\n"
    found = run(shell("fish"), "--no-config", "-c", script=script)
    assert found == completed


def test_zsh_takes_the_script(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = f"HOME={tmp_path}\n{completion('zsh', capsys)}print $_comps[gateway]\n"
    assert run(shell("zsh"), "-f", "-c", script=script) == {"_bash_complete"}


def test_all_shells_know_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bash", "zsh", "fish"):
        script = completion(name, capsys)
        for word in ("init", "client", "families", "import", "mule", "migrate"):
            assert word in script
        # Old spellings are taken, not suggested.
        assert "password-stdin" not in script
