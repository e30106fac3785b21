"""The attacks that are measured: each is made, and told of, in a round of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from support.deadlines import scaled, until
from support.running_gateway import StartGateway
from support.tiers import slow

from bench.attacks.__main__ import ATTACKS, HEADINGS
from bench.attacks.h2_attackers import H2_ATTACKS, H2Attack
from bench.attacks.origin import respond
from bench.attacks.results import TITLES


@slow("bench")
def test_an_attack_is_measured_beside_honest_requests() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bench.attacks", "--only", "slow_bodies", "--rounds", "1",
         "--seconds", f"{scaled(0.5):.1f}"],
        capture_output=True, text=True, check=True, timeout=scaled(120),
    )  # fmt: skip
    rows = [line for line in ran.stdout.splitlines() if line.startswith("| slow bodies |")]
    (row,) = rows
    cells = row.removeprefix("|").removesuffix("|").split("|")  # what ended it may be nothing
    reported = dict(zip(HEADINGS, (cell.strip() for cell in cells), strict=True))
    assert int(reported["done"]) > 0
    assert reported["failures"] == "0"
    assert float(reported["p99 beside"].removesuffix(" ms")) > 0


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("h2_rapid_reset", {"ENHANCE_YOUR_CALM"}),
        ("h2_made_you_reset", {"ENHANCE_YOUR_CALM", "FLOW_CONTROL_ERROR"}),
        ("h2_continuations", {"ENHANCE_YOUR_CALM"}),
        ("h2_settings", {"ENHANCE_YOUR_CALM"}),
        ("h2_pings", {"ENHANCE_YOUR_CALM"}),
        ("h2_priorities", {"ENHANCE_YOUR_CALM", "PROTOCOL_ERROR"}),
        ("h2_empty_data", {"ENHANCE_YOUR_CALM"}),
        ("h2_hpack_bombs", {"ENHANCE_YOUR_CALM"}),
        ("h2_window_dribble", {"ENHANCE_YOUR_CALM"}),
        ("h2_window_overflow", {"FLOW_CONTROL_ERROR"}),
        ("h2_zero_window", {"CANCEL (streams)"}),
    ],
)
async def test_each_attack_of_http2_is_ended(
    start: StartGateway, name: str, codes: set[str]
) -> None:
    async with await asyncio.start_server(respond, "127.0.0.1", 0) as origin:
        gateway = await start(
            f"http://127.0.0.1:{origin.sockets[0].getsockname()[1]}",
            listen={"timeouts": {"body": "300ms"}},
            routes=[{"name": "open", "match": {"path": "/open"}, "upstream": "main",
                     "auth": "none"}],
        )  # fmt: skip
        attack = H2Attack(gateway.port, share=0.05)
        attacking = asyncio.create_task(getattr(attack, name)())
        await until(lambda: attack.ended)
        attacking.cancel()
        await asyncio.wait([attacking])
        assert set(attack.ended) <= codes
        assert attack.done > 0
        await until(lambda: gateway.gateway.metrics.data_plane.h2.connections == 0)
        await until(lambda: gateway.gateway.metrics.data_plane.inflight_requests == 0)


def test_every_attack_has_a_title_and_every_one_of_http2_is_tested() -> None:
    assert set(TITLES) == set(ATTACKS)
    marks = test_each_attack_of_http2_is_ended.pytestmark  # type: ignore[attr-defined]
    tested = [name for mark in marks if mark.name == "parametrize" for name, _ in mark.args[1]]
    assert tested == list(H2_ATTACKS)
