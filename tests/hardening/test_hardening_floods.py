"""Floods of made-up names, tokens, secrets and texts: they fill no memory, no log and no queue
to the harm of others."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import pkgutil
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.running_gateway import REGISTRATION_TOKEN, RunningGateway, StartGateway, basic
from support.servers.raw_upstream import RawUpstream
from support.tiers import slow
from support.under_attack import honest_traffic

import gateway as package
from gateway.oauth import limiter as limiter_module
from gateway.oauth.parameters import MAX_PARAMETERS

FORM_TYPE = "application/x-www-form-urlencoded"
FORM = {"grant_type": "client_credentials"}


# Names that hash alike.


def colliding_names(count: int) -> list[bytes]:
    """Names that begin at one slot in any dict of up to 4096 entries, in this process."""
    names = (b"x-%d" % number for number in itertools.count())
    return list(itertools.islice((name for name in names if hash(name) % 4096 == 7), count))


async def test_names_that_hash_alike_are_too_few_to_matter(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    names = colliding_names(98)
    client = await gateway.connect()
    head = b"GET /public HTTP/1.1\r\nHost: h\r\n%b\r\n"
    await client.send(head % b"".join(b"%b: 1\r\n" % name for name in names))
    assert (await client.read_response()).status == 200
    assert set(names) < set(upstream.requests[0].names())
    more = colliding_names(101)
    reply = await gateway.send(head % b"".join(b"%b: 1\r\n" % name for name in more))
    assert reply.startswith(b"HTTP/1.1 431 ")
    form = "&".join(f"{name.decode()}=1" for name in colliding_names(MAX_PARAMETERS + 1))
    async with gateway.session.post(
        gateway.url("/token"), data=form, headers={"Content-Type": FORM_TYPE}
    ) as response:
        assert response.status == 400


def test_no_client_can_work_out_which_names_hash_alike() -> None:
    """The order of names is drawn anew in each process, and nothing that we start fixes it."""
    assert sys.flags.hash_randomization
    assert sys.hash_info.algorithm.startswith("siphash")
    command = [sys.executable, "-c", "import gateway; print(hash(b'x-client-id'))"]
    drawn = {subprocess.run(command, capture_output=True, check=True).stdout for _ in range(3)}
    assert len(drawn) > 1


# Regular expressions.


def patterns() -> dict[str, re.Pattern[Any]]:
    """Every pattern that a module of the gateway keeps, by its name."""
    found = {}
    for module in pkgutil.walk_packages(package.__path__, "gateway."):
        if not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern):
                    found[f"{module.name}.{name}"] = value
    return found


def ambiguities(pattern: str, flags: int = 0) -> Iterator[str]:
    """Where a pattern may match the same text in many ways, and so take long to find none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of sre_parse, which it reads by
        reason = "Regexploit is missing: pip install regexploit"
        sre = pytest.importorskip("regexploit.ast.sre", reason=reason)
        redos = pytest.importorskip("regexploit.redos", reason=reason)
    for found in redos.find(sre.SreOpParser().parse_sre(pattern, flags)):
        yield f"{found.starriness}: {found.repeated_character}"


def test_no_pattern_backtracks_over_what_it_reads() -> None:
    found = patterns()
    assert len(found) > 40
    for name, pattern in found.items():
        text = pattern.pattern
        if isinstance(text, bytes):
            text = text.decode("latin-1")
        assert not [*ambiguities(text, pattern.flags & re.IGNORECASE)], name


@pytest.mark.parametrize("pattern", [r"(?:a+)+b", r"\s*a*\s*\s*b", r"(?:x|y)*y*y*!"])
def test_analysis_of_patterns_sees_those_that_do(pattern: str) -> None:
    assert [*ambiguities(pattern)]


@slow("patterns")
def test_patterns_end_on_long_hostile_texts_within_a_bounded_time(tmp_path: Path) -> None:
    """What the analysis may not see: all of them, on texts that almost match, in a process that
    the kernel ends after ten seconds of work. Reading each text once takes a fraction of one."""
    script = tmp_path / "hostile.py"
    script.write_text(
        "import json, re, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (10, 10))\n"
        "units = [' ', 'a', '0', '/', '%41', '.a', '/a', 'a;', '=', ';', ',', '\\t', '-a', '$a',\n"
        "    'HTTP/1.', 'bearer ', 'a: ', '%', '://', '[:', '#[', '\\r', 'A=\"', '\\r\\n']\n"
        "for text, flags, is_bytes in json.load(sys.stdin):\n"
        "    pattern = re.compile(text.encode('latin-1') if is_bytes else text, flags)\n"
        "    for unit in units:\n"
        "        for end in ('', '\\0', '!', '\\r\\n\\0'):\n"
        "            hostile = unit * (16384 // len(unit)) + end\n"
        "            hostile = hostile.encode() if is_bytes else hostile\n"
        "            pattern.fullmatch(hostile); pattern.match(hostile)\n"
        "print('whole')\n"
    )
    given: list[tuple[str, int, bool]] = []
    for pattern in patterns().values():
        is_bytes = isinstance(pattern.pattern, bytes)
        text = pattern.pattern.decode("latin-1") if is_bytes else pattern.pattern
        given.append((text, pattern.flags & ~re.UNICODE, is_bytes))
    ran = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(given), capture_output=True, text=True
    )
    assert ran.stdout == "whole\n", (ran.returncode, ran.stderr)
    given.append((r"a*a*a*b", 0, False))
    ran = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(given), capture_output=True, text=True
    )
    assert ran.returncode < 0, "the limit does not hold"


# What is written down.

INJECTIONS = [
    b"%0d%0aforged", b"%0a{%22status%22:200}", b"%1b[2Jx", b"%22,%22status%22:200,%22a%22:%22",
    b"%e2%80%a8forged", b"\xff\xfe", b'"},{"status":200', b"\\u000a", b"%00",
]  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
async def test_no_text_of_a_client_forges_a_line_of_the_log(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    requests = [
        b"GET /public/%b HTTP/1.1\r\nHost: h\r\n\r\n" % text,
        b"GET /public?%b HTTP/1.1\r\nHost: h\r\n\r\n" % text,
        b"GET /public HTTP/1.1\r\nHost: h\r\nX-Request-Id: %b\r\nUser-Agent: %b\r\n"
        b"X-Forwarded-For: %b\r\nTraceparent: %b\r\n\r\n" % (text, text, text, text),
        b"GET /public HTTP/1.1\r\nHost: %b\r\n\r\n" % text,
        b"%b /public HTTP/1.1\r\nHost: h\r\n\r\n" % text,
        b"GET /api HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n\r\n" % text,
    ]
    for request in requests:
        client = await gateway.connect()
        await client.send(request)
        await client.read_response()
    for member in ("client_id", "client_name"):
        name = text.decode("latin-1") + "\r\nforged\x1b[2J"
        async with gateway.session.post(
            gateway.url("/createClient"),
            json={"client_id": "c", "client_secret": "s", member: name},
            headers={"Authorization": f"Bearer {REGISTRATION_TOKEN}"},
        ) as response:
            assert response.status < 500
    async with gateway.session.post(
        gateway.url("/token"), data=FORM, headers=basic("c\r\nforged\x1b[2J", "s")
    ) as response:
        assert response.status == 401
    lines = await gateway.logged(len(requests) + 3)
    raw = (gateway.directory / "access.log").read_bytes()
    assert raw.count(b"\n") == len(lines) == len(requests) + 3, "a line for each request"
    for byte in {*range(0x20), 0x7F, *range(0x80, 0x100)} - {0x0A}:
        assert bytes([byte]) not in raw
    assert {line["status"] for line in lines} <= {200, 201, 400, 401, 404, 409}
    for record in caplog.records:
        assert record.getMessage().isprintable(), record


# Tokens and secrets that are none.


async def test_flood_of_unknown_tokens_pushes_no_good_one_out(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, cache={"max_entries": 50})
    token = await gateway.token()
    good = {"Authorization": f"Bearer {token}"}

    async def fetch(headers: dict[str, str]) -> int:
        async with gateway.session.get(gateway.url("/api"), headers=headers) as response:
            return response.status

    assert await fetch(good) == 200
    async with honest_traffic(gateway):
        for beginning in range(0, 2000, 50):
            flood = range(beginning, beginning + 50)
            responses = await asyncio.gather(
                *(fetch({"Authorization": f"Bearer made-up-{number}"}) for number in flood)
            )
            assert set(responses) == {401}
    validator = gateway.gateway.validator
    assert len(validator) == 1
    assert len(validator._refused) <= 50
    assert not validator._reads
    misses = await gateway.metric("gateway_token_cache_lookups_total", result="miss")
    assert await fetch(good) == 200
    assert await gateway.metric("gateway_token_cache_lookups_total", result="miss") == misses


@slow("hashes")
@pytest.mark.usefixtures("real_hashes")
async def test_guesses_spread_over_clients_and_sources_are_bounded_for_each_pair(
    start: StartGateway, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a client that knows its secret gets tokens meanwhile, as do its requests answers."""
    monkeypatch.setattr(limiter_module, "MAX_PAIRS", 40)
    gateway = await start(upstream.url, trusted_proxies=["127.0.0.1/32"])
    await gateway.create_client("honest")
    await gateway.create_client("victim")
    outcomes: list[int] = []
    counted: dict[tuple[str, str], int] = {}

    async def guess(client_id: str, source: str, number: int) -> None:
        async with gateway.session.post(
            gateway.url("/token"),
            data=FORM,
            headers=basic(client_id, f"guess-{number}") | {"X-Forwarded-For": source},
        ) as response:
            outcomes.append(response.status)
            if response.status == 401:
                pair = client_id, source
                counted[pair] = counted.get(pair, 0) + 1

    async def keep_getting_tokens() -> int:
        got = 0
        while True:
            await gateway.get_token("honest")
            got += 1
            await asyncio.sleep(0.01)
            if len(outcomes) == 400:
                return got

    async with honest_traffic(gateway):
        getting = asyncio.create_task(keep_getting_tokens())
        for number in range(20):  # the same pairs, again and again
            await asyncio.gather(
                *(guess("victim", f"192.0.2.{source}", number) for source in range(10)),
                *(guess(f"made-up-{name}", "192.0.2.99", number) for name in range(10)),
            )
        assert await getting > 0
    assert set(outcomes) <= {401, 429, 503}
    assert len(counted) == 20
    assert set(counted.values()) == {5}, "the sixth guess of a pair is not looked at"
    for name in range(100):
        await guess(f"more-{name}", "192.0.2.98", 0)
    limiter = gateway.gateway._data._shared.provider.limiter
    failing = [*limiter.failing()]
    assert len([one for one in failing if one.client_id != "victim"]) <= 40, "unknown ids"
    assert len([one for one in failing if one.client_id == "victim"]) == 10, "and push none out"
