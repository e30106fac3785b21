"""The tutorial, typed from start to end as it stands there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deadlines import wait_until
from support.processes.terminal import PORTS, ROOT, Terminal, make_checkout, moved

from examples.ports import free_port

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not shutil.which("curl"), reason="curl is missing: apt-get install curl"),
]

PAGE = (ROOT / "docs" / "tutorials" / "first-call.md").read_text()


@pytest.fixture
def ports() -> dict[str, str]:
    return {port: str(free_port()) for port in PORTS}


@pytest.fixture
def terminals(tmp_path: Path, ports: dict[str, str]) -> Iterator[list[Terminal]]:
    checkout = make_checkout(tmp_path)
    opened = [Terminal(checkout, ports), Terminal(checkout, ports)]
    try:
        yield opened
    finally:
        for terminal in opened:
            terminal.close()


def statuses(terminal: Terminal) -> list[str]:
    """The statuses of the responses that it showed."""
    return re.findall(r"HTTP/1\.1 (\d+)", terminal.shows())


def test_tutorial_shows_what_it_promises(
    terminals: list[Terminal], tmp_path: Path, ports: dict[str, str]
) -> None:
    blocks = [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)]
    begin, first_call, change, second_call, revoke = blocks
    one, other = terminals
    for line in begin:
        one.type(line)
        if line.startswith("gateway init"):
            one.wait_for("gateway client create shop")
            # Only for this test, which can't have the ports to itself.
            path = tmp_path / "tutorial" / "gateway.yaml"
            path.write_text(moved(path.read_text(), ports))
    one.wait_for("listens on http")
    other.run(first_call)
    assert statuses(other) == ["401", "200"]
    assert "Hello from the upstream." in other.shows()
    other.run(change)
    assert "gateway.yaml: ok (2 routes, 1 upstream)" in other.shows()
    one.wait_for("reload (file): ok")
    other.run(second_call)
    assert statuses(other) == ["401", "200", "403"]
    assert re.search(r"route +orders\n", other.shows())
    other.run(revoke)
    wait_until(lambda: again(other, revoke[-1]) == "401", within_s=60)
    assert 'error="invalid_token"' in other.shows()


def again(terminal: Terminal, line: str) -> str:
    """The status of the next response to a line: a revocation arrives within a second."""
    before = len(statuses(terminal))
    terminal.type(line)
    wait_until(lambda: len(statuses(terminal)) > before, within_s=60)
    return statuses(terminal)[-1]
