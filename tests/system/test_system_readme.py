"""The commands of the README, typed line by line as they stand there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes.terminal import PORTS, Terminal, make_checkout

from examples.ports import free_port

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not shutil.which("curl"), reason="curl is missing: apt-get install curl"),
]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    """The text of a section."""
    found = re.search(rf"^## {title}\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def ports() -> dict[str, str]:
    return {port: str(free_port()) for port in PORTS}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path)


@pytest.fixture
def terminals(checkout: Path, ports: dict[str, str]) -> Iterator[list[Terminal]]:
    opened = [Terminal(checkout, ports), Terminal(checkout, ports)]
    try:
        yield opened
    finally:
        for terminal in opened:
            terminal.close()


def test_quick_start_ends_in_a_response_of_the_upstream(
    terminals: list[Terminal], ports: dict[str, str]
) -> None:
    blocks = re.findall(r"(?:^ {4}\S.*\n)+", section("Quick start"), re.MULTILINE)
    (start,), lines = ([line.strip() for line in block.splitlines()] for block in blocks[:2])
    assert start == "make run"
    assert len(lines) == 3
    one, other = terminals
    settings = " ".join(
        f"{name}={ports[port]}"
        for name, port in zip(("PORT", "ADMIN_PORT", "UPSTREAM_PORT"), PORTS[:3], strict=True)
    )
    # What the target of make does once the environment is there.
    one.type(f"{settings} .venv/bin/python -m examples.demo")
    one.wait_for("The gateway is ready")
    other.run(lines)
    assert "HTTP/1.1 201 Created" in other.shows()
    assert "HTTP/1.1 200 OK" in other.shows()
    assert "Hello from the upstream." in other.shows()
