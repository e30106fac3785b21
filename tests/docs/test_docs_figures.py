"""Sizes and times that documents name are constants or defaults of the code, or measured.

What stands between the marks of the bench is compared with its results in
tests/bench/test_bench_report.py; tables of keys are written from the schema."""

from __future__ import annotations

import ast
import functools
import operator
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.app.periodic import USAGE_S
from gateway.config import parse_config
from gateway.downstream import h2_limits
from gateway.http import h2_budget
from gateway.oauth import api_keys
from gateway.oauth.authentication import cached_secrets

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
UNITS = {"bytes": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "ms": 1e-3, "µs": 1e-6}
FIGURE = re.compile(r"(?<![\w`.])([0-9][0-9,.]*) ?(KiB|MiB|GiB|MB|GB|bytes|ms|µs)\b")
READ = 256 * 1024
"""What uvloop reads at a time: none of our constants."""

SOURCES: dict[tuple[str, str], str | float] = {
    ("endpoints", "64 KiB"): "MAX_BODY_BYTES",
    ("python-api", "64 KiB"): "MAX_BODY_BYTES",
    ("reasons", "64 KiB"): "MAX_BODY_BYTES",
    ("reasons", "512 KiB"): "MAX_BYTES",
    ("request-path", "256 KiB"): "FLUSH_BYTES",
    ("postgresql", "250 ms"): "CHANGE_POLL_S",
    ("monitoring", "250 ms"): "RATE_LIMIT_TIMEOUT_S",
    ("replicas", "250 ms"): "CHANGE_POLL_S",
    ("listener", "4 KiB"): "MAX_V2_BYTES",
    ("routing", "256 KiB"): "MAX_BUFFERED_BYTES",
    ("oauth", "5 KiB"): "MAX_DOCUMENT_BYTES",
    ("security", "5 KiB"): "MAX_DOCUMENT_BYTES",
    ("security", "1 MiB"): "MAX_LINGER_BYTES",
    ("security", "64 KiB"): "MAX_BUFFERED_BYTES",
    ("security", "256 KiB"): READ,
    ("security", "640 KiB"): 2 * (64 * 1024 + READ),
    ("security", "128 KiB"): "MAX_UNSENT_BYTES",
    ("security", "32 KiB"): "listen.limits.head_bytes",
    ("security", "256 bytes"): "MAX_CHUNK_LINE_BYTES",
    ("security", "16 KiB"): "MAX_TRAILER_BYTES",
    ("security", "240 bytes"): "listen.limits.min_body_rate",
    ("upstreams", "64 KiB"): "MAX_KEPT_BYTES",
    ("upstreams", "256 KiB"): "STREAM_WINDOW",
    ("upstreams", "25 ms"): "upstreams.a.retries.backoff.base_s",
    ("upstreams", "250 ms"): "upstreams.a.retries.backoff.max_s",
}
ROUND = {
    ("README", "100 MB"),  # of disk, by whatever pip installs
    ("replicas", "400 bytes"),  # links to what is measured
    *(("performance", size) for size in ("1 KiB", "16 KiB", "100 KiB", "1 MiB")),  # workloads
    # By `bench.many_workers`, once, for the plan of large machines.
    *(("architecture", size) for size in ("12 MiB", "270 MiB", "860 MiB")),
    *(("architecture", time) for time in ("0.6 ms", "10 ms", "40 ms", "9 µs")),
}
CONFIG = parse_config(
    "provider: {registration: {mode: open}}\n"
    "upstreams: {a: {targets: ['http://127.0.0.1:9'], retries: {}}}\n"
    "routes: [{name: a, match: {path: /}, upstream: a}]\n",
    file="g.yaml",
    environ={},
)
OPERATIONS: dict[type, Callable[[float, float], float]] = {
    ast.Mult: operator.mul, ast.Pow: operator.pow, ast.Add: operator.add,
    ast.LShift: lambda left, right: int(left) << int(right),
}  # fmt: skip


def evaluated(node: ast.expr) -> float | None:
    """The number that an expression of constants stands for."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = evaluated(node.left), evaluated(node.right)
        if left is not None and right is not None:
            return OPERATIONS[type(node.op)](left, right)
    return None


@functools.cache
def constants() -> dict[str, set[float]]:
    """The numbers that modules of the gateway name, by name."""
    found: dict[str, set[float]] = defaultdict(set)
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = evaluated(node.value)
                if value is not None:
                    found[node.targets[0].id].add(float(value))
    return found


def figures(document: Path) -> list[tuple[str, float]]:
    """The sizes and times of a document, outside of code and of generated parts."""
    text = document.read_text()
    text = re.sub(r"<!-- (bench|keys|cli)\b.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```|^    .*$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [
        (found[0], float(found[1].replace(",", "")) * UNITS.get(found[2], 1.0))
        for found in FIGURE.finditer(text)
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_each_size_and_time_of_a_document_has_its_source(document: Path) -> None:
    for text, value in figures(document):
        place = (document.stem, text)
        if place in ROUND:
            continue
        assert place in SOURCES, f"{place}: name its source here, or leave it out there"
        source = SOURCES[place]
        if isinstance(source, float | int):
            allowed = {float(source)}
        elif "." in source:
            allowed = {
                float(operator.attrgetter(source.replace("upstreams.a.", ""))(_root(source)))
            }
        else:
            allowed = constants()[source]
        assert value in allowed, f"{place}: {source} is {allowed}"


def _root(key: str) -> object:
    return CONFIG.upstreams["a"] if key.startswith("upstreams.a.") else CONFIG


def test_what_one_client_can_use_up_is_bounded_as_the_table_says() -> None:
    text = (ROOT / "docs" / "explanation" / "security.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]*\|$", text, re.MULTILINE))
    expected = {
        "connections": (CONFIG.listen.max_connections,),
        "head": (32, CONFIG.listen.limits.headers, int(CONFIG.listen.timeouts.head)),
        "body for the provider": (64, *constants()["MAX_PARAMETERS"]),
        "reads of the store at once": (CONFIG.cache.max_store_reads, 4096),
        "failing clients kept": tuple(constants()["MAX_PAIRS"]),
        "known header lines": (*constants()["MAX_KNOWN_LINES"], 256),
        "resets of an HTTP/2 connection, and streams that end by its errors": (
            CONFIG.listen.http2.max_resets, h2_limits.RESET_REFILL_S, h2_limits.TRUSTED_FACTOR,
        ),
        "PING, SETTINGS and WINDOW_UPDATE frames of one": (
            h2_budget.CONTROL_FRAMES, h2_budget.CONTROL_REFILL_S, h2_budget.PER_REQUEST,
            h2_budget.PER_PIECE,
        ),
    }  # fmt: skip
    assert 4096 in constants()["MAX_WAITING"]
    for name, numbers in expected.items():
        shown = [
            int(one.replace(" ", "")) for one in re.findall(r"[0-9]+(?: [0-9]{3})*", rows[name])
        ]
        assert shown == [*map(int, numbers)], name


def test_limits_of_api_keys_are_those_that_documents_name() -> None:
    guide = (ROOT / "docs" / "guides" / "api-keys.md").read_text()
    assert f"up to {api_keys.MAX_KEYS}." in guide.replace("\n", " ")
    assert f"to {api_keys.LAST_USE_S / 60:g} minutes" in guide
    assert api_keys.FLUSH_BATCH / USAGE_S == 10
    assert "at most ten keys a second" in guide
    assert f"`bgk_`, {api_keys.RANDOM_CHARS} characters and {api_keys.CHECKSUM_CHARS}" in guide
    assert api_keys.PATTERN in guide
    security = (ROOT / "docs" / "explanation" / "security.md").read_text()
    assert f"routes that accept them | {cached_secrets.MAX_AT_ONCE}, then 503" in security
