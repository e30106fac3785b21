"""The documents show the commands that there are, as their parser takes them."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deadlines import scaled

from gateway.cli import make_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def test_the_reference_of_commands_is_what_their_parser_says() -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / ".ci" / "cli_reference.py", "--check"],
        capture_output=True, text=True, timeout=scaled(60),
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}: run `make reference`"


def command_lines(text: str) -> Iterator[str]:
    """The command lines of this gateway that stand in blocks of code."""
    blocks = re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, re.DOTALL)
    blocks += re.findall(r"(?:^(?: {4}|\t)\S.*\n(?:(?: {4}|\t).*\n)*)", text, re.MULTILINE)
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(?:\$ )?(?:.*?\| )?(?:\S*/)?gateway ((?:-|[a-z]).*)", line)
            if found and "|" not in found[1].partition(" ")[0]:
                yield found[1].rstrip()


def lines_of(document: Path) -> list[str]:
    return [line for line in command_lines(document.read_text()) if not is_synopsis(line)]


def is_synopsis(line: str) -> bool:
    """Whether a line shows what can be typed, rather than what to type."""
    return bool(re.search(r"[a-z]\|[a-z]|\[-|\.\.\.", line))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_command_line_in_a_document_is_one_that_the_parser_takes(document: Path) -> None:
    if document.name == "cli.md":
        pytest.skip("it is written from the parser")
    for line in lines_of(document):
        assert complaint_about(line) == "", f"gateway {line}"


def complaint_about(line: str) -> str:
    """What the parser says of a command line that it does not take."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.suppress(SystemExit):
        make_parser().parse_args(shlex.split(re.sub(r"&$|[<>] *\S+$", "", line), comments=True))
    return errors.getvalue()


SOURCES = [
    path
    for folder in ("gateway", "examples", "config", "deploy")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".html", ".yaml", ".txt"}
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_command_that_a_document_names_is_there(document: Path) -> None:
    assert unknown_commands(document.read_text()) == []


def test_a_command_that_a_message_or_example_names_is_there() -> None:
    found = {path.name: unknown_commands(path.read_text()) for path in SOURCES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def unknown_commands(text: str) -> list[str]:
    """The commands that a text names in backticks and that do not exist."""
    commands = re.findall(
        r"^#+ gateway (.*)$", (ROOT / "docs/reference/cli.md").read_text(), re.MULTILINE
    )
    known = {" ".join(one.split()[:end]) for one in commands for end in (1, 2, 3)}
    groups = {"", *(one.rpartition(" ")[0] for one in known)}
    unknown = []
    for line in re.findall(r"`gateway ([a-z][^`\n]*)`", text):
        path = ""
        for word in line.split():
            if path not in groups or word in {"...", "COMMAND"}:
                break
            if any(f"{path} {choice}".strip() not in known for choice in word.split("|")):
                unknown.append(line)
            path = f"{path} {word.partition('|')[0]}".strip()
    return unknown


def test_documents_have_command_lines_to_look_at() -> None:
    found = {document.name: lines_of(document) for document in DOCUMENTS}
    assert sum(map(len, found.values())) > 20
    assert "run" in found["first-call.md"]


@pytest.mark.parametrize(
    "line", ["client remake shop", "client create --password x", "routes --to http://127.0.0.1"]
)
def test_a_command_line_that_the_parser_refuses_is_found(line: str) -> None:
    (found,) = command_lines(f"Text:\n\n    gateway {line}\n")
    assert complaint_about(found)
