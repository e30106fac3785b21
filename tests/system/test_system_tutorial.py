"""The tutorials, typed from start to end as they stand there; gRPC has a file of its own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from support.clients.person import allow_with
from support.deadlines import wait_until
from support.processes.terminal import PORTS, ROOT, Terminal, make_checkout, moved
from support.tiers import slow

from examples.ports import free_port
from gateway.cli import init

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not shutil.which("curl"), reason="curl is missing: apt-get install curl"),
]

TUTORIALS = ROOT / "docs" / "tutorials"
PAGE = (TUTORIALS / "first-call.md").read_text()


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


def blocks_of(page: str) -> list[list[str]]:
    """The lines to type, block by block."""
    return [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)]


def statuses(terminal: Terminal) -> list[str]:
    """The statuses of the responses that it showed."""
    return re.findall(r"HTTP/1\.1 (\d+)", terminal.shows())


@slow("tutorials")
def test_tutorial_shows_what_it_promises(
    terminals: list[Terminal], tmp_path: Path, ports: dict[str, str]
) -> None:
    blocks = blocks_of(PAGE)
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
    # The client gets a token by itself, too, as `client create` shows.
    (curl,) = re.findall(r"^ +(curl .*/token .*)$", other.shows(), re.MULTILINE)
    other.run([curl])
    assert '"access_token"' in other.shows()
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


def test_configuration_that_the_tutorial_shows_is_the_one_that_init_writes() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    written = init.TEMPLATE.replace("UPSTREAM", init.DEFAULT_UPSTREAM)
    assert yaml.safe_load(shown) == yaml.safe_load(written)


@slow("tutorials")
def test_tutorial_of_fastapi_shows_what_it_promises(
    terminals: list[Terminal], tmp_path: Path, ports: dict[str, str]
) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    service, gateway, first_calls, write = blocks_of((TUTORIALS / "fastapi.md").read_text())
    one, two = terminals
    three = Terminal(tmp_path, ports)
    terminals.append(three)
    for line in service:
        one.type(line)
    one.wait_for("Uvicorn running")
    for line in gateway:
        two.type(line)
    two.wait_for("listens on http")
    assert "gateway.yaml: ok (2 routes, 1 upstream)" in two.shows()
    three.run(first_calls)
    assert statuses(three) == ["401", "200", "200"]
    assert three.shows().count('{"orders":["coffee"],"client":"shop"}') == 2
    three.run(write)
    assert statuses(three)[3:] == ["403", "201"]
    assert '{"item":"tea","client":"shop"}' in three.shows()


@slow("tutorials")
def test_tutorial_of_mulesoft_shows_what_it_promises(terminals: list[Terminal]) -> None:
    take, call, register = blocks_of((TUTORIALS / "mulesoft.md").read_text())
    one, other = terminals
    for line in take:
        one.type(line)
    # The application's stand-in, then the gateway.
    wait_until(lambda: one.shows().count("listens on http") == 2, within_s=60)
    assert "shop" in one.shows()
    other.run(call)
    assert statuses(other) == ["200", "200"]
    assert '"client_id": "shop"' in other.shows() or '"client_id":"shop"' in other.shows()
    assert "Hello from the upstream." in other.shows()
    other.run(register)
    assert statuses(other)[2:] == ["401", "201"]


@slow("tutorials")
def test_tutorial_of_mcp_shows_what_it_promises(
    terminals: list[Terminal], tmp_path: Path, ports: dict[str, str]
) -> None:
    begin, look, call_tool, change = blocks_of((TUTORIALS / "mcp.md").read_text())
    one, other = terminals
    for line in begin:
        one.type(line)
        if line.startswith("cp "):
            one.type("echo copied")
            one.wait_for("copied")
            path = tmp_path / "tutorial" / "gateway.yaml"
            path.write_text(moved(path.read_text(), ports))
    one.wait_for(f"http://127.0.0.1:{ports['8080']}")
    other.run(look)
    assert statuses(other) == ["401"]
    assert 'scope="mcp"' in other.shows()
    assert '"scopes_supported":["mcp"]' in other.shows()
    other.type(call_tool[0])
    with httpx.Client() as browser:
        for count in (1, 2):
            wait_until(lambda count=count: len(pages(other)) == count, within_s=60)  # type: ignore[misc]
            httpx.get(allow_with(browser, pages(other)[-1]))
    other.wait_for("It rains in Bern, alice.")
    assert "tools: admin_reset, get_weather" in other.shows()
    other.run(change)
    assert "gateway.yaml: ok" in other.shows()
    one.wait_for("reload (file): ok")
    assert "scopes: [mcp, weather:read]  #" in (tmp_path / "tutorial/gateway.yaml").read_text()


def pages(terminal: Terminal) -> list[str]:
    """The addresses that the client asked its user to open."""
    return re.findall(r"^Open in a browser: (\S+)", terminal.shows(), re.MULTILINE)


@slow("tutorials")
def test_tutorial_of_aiohttp_shows_what_it_promises(terminals: list[Terminal]) -> None:
    application, call, revoke, tests = blocks_of((TUTORIALS / "aiohttp.md").read_text())
    one, other = terminals
    for line in ("export PYTHONUNBUFFERED=1", *application):
        one.type(line)
    one.wait_for("Running on")
    other.run(call)
    assert statuses(other) == ["200", "401", "200", "403"]
    assert '{"orders": ["coffee"], "client": "shop"}' in other.shows()
    assert 'scope="orders:write"' in other.shows()
    other.run(revoke)
    wait_until(lambda: again(other, revoke[-1]) == "401", within_s=60)
    other.run(tests)
    assert "1 passed" in other.shows()


@slow("tutorials")
def test_tutorial_of_fastapi_in_process_shows_what_it_promises(
    terminals: list[Terminal], tmp_path: Path, ports: dict[str, str]
) -> None:
    service, provider, call, revoke = blocks_of((TUTORIALS / "fastapi-in-process.md").read_text())
    one, two = terminals
    three = Terminal(tmp_path, ports)
    terminals.append(three)
    for line in service:
        one.type(line)
    one.wait_for("Uvicorn running")
    for line in provider:
        two.type(line)
    two.wait_for("listens on http")
    three.run(call)
    assert statuses(three) == ["401", "200", "403"]
    assert '{"orders":["coffee"],"client":"shop"}' in three.shows()
    assert f"'tokenUrl': 'http://127.0.0.1:{ports['8080']}/token'" in three.shows()
    three.run(revoke)
    wait_until(lambda: again(three, revoke[-1]) == "401", within_s=60)


@slow("tutorials")
def test_tutorial_of_workloads_shows_what_it_promises(
    terminals: list[Terminal], tmp_path: Path, ports: dict[str, str]
) -> None:
    cluster, gateway, call, curl = blocks_of((TUTORIALS / "workloads.md").read_text())
    one, two = terminals
    three = Terminal(tmp_path, ports)
    terminals.append(three)
    for line in cluster[:-1]:
        one.type(line)
    one.type(f"{cluster[-1]} --port {ports['9002']}")
    one.wait_for("cluster listens on")
    for line in gateway:
        two.type(line)
    two.wait_for("gateway.yaml: ok (1 route, 1 upstream)")
    # The service's stand-in, and the gateway.
    wait_until(lambda: two.shows().count("listens on http") == 2, within_s=60)
    three.run(call)
    assert "Hello from the upstream. It was called by orders." in three.shows()
    assert "No workload is configured for the subject" in three.shows()
    assert "system:serviceaccount:shop:other" in three.shows()
    three.run(curl)
    assert '"scope":"payments:write"' in three.shows()
    assert statuses(three) == ["401"]
    assert "workloads[0]: the subject is not system:serviceaccount:shop:orders" in three.shows()
    two.wait_for("token.issue 'orders' by workload cluster:system:serviceaccount:shop:orders from")
    two.wait_for("node=worker-1")
