"""The commands of the README, typed line by line as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.processes.terminal import PORTS, Terminal, make_checkout, moved

from examples.ports import free_port
from gateway.cli import init

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
        for name, port in zip(("PORT", "ADMIN_PORT", "UPSTREAM_PORT"), PORTS, strict=True)
    )
    # What the target of make does once the environment is there.
    one.type(f"{settings} .venv/bin/python -m examples.demo")
    one.wait_for("The gateway is ready")
    other.run(lines)
    assert "HTTP/1.1 201 Created" in other.shows()
    assert "HTTP/1.1 200 OK" in other.shows()
    assert "Hello from the upstream." in other.shows()


def test_walk_through_of_an_own_service_ends_in_a_token_and_a_200(
    terminals: list[Terminal], checkout: Path, ports: dict[str, str]
) -> None:
    first, second = (
        block.strip().splitlines()
        for block in re.findall(r"```bash\n(.*?)```", section("Your own service"), re.DOTALL)
    )
    assert first[-1] == "gateway run"
    one, other = terminals
    for line in first:
        one.type(line)
        if line.startswith("gateway init"):
            one.wait_for("gateway client create shop")
            # Only for this test, which can't have the ports to itself.
            path = checkout / "my-gateway" / "gateway.yaml"
            path.write_text(moved(path.read_text(), ports))
    one.wait_for("listens on http")
    assert "gateway.yaml: ok" in one.shows()
    other.run(second)
    assert "HTTP/1.1 200 OK" in other.shows()
    assert '"X-Client-Id": "shop"' in other.shows()
    # The client gets a token by itself, too, as `client create` shows.
    (curl,) = re.findall(r"^ +(curl .*/token .*)$", other.shows(), re.MULTILINE)
    assert (
        '"access_token"'
        in subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout
    )


def test_configuration_that_the_readme_shows_is_the_one_that_init_writes() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", section("Your own service"), re.DOTALL)
    written = init.TEMPLATE.replace("UPSTREAM", init.DEFAULT_UPSTREAM)
    assert yaml.safe_load(shown) == yaml.safe_load(written)
