"""The tables that README.md and pages other than performance.md quote from the results."""

from __future__ import annotations

from bench.figures import by_round, bytes_per_s, cpu_us, ratio, requests_per_s, summarise
from bench.report.numbers import DASH, show_figure
from bench.report.tables import Table, doubts
from bench.results import Calls, Results, StoreResults
from bench.targets import AIOHTTP, CACHED, CADDY, ENVOY, GATEWAY
from bench.workloads import WORKLOADS

COMPARED = {
    CACHED: "nginx with a cached `auth_request`",
    ENVOY: "Envoy with `jwt_authn`",
    CADDY: "Caddy with `forward_auth`",
    AIOHTTP: "a proxy of the same function on plain aiohttp",
}
QUOTED = {
    "varied": "heads and responses vary",
    "tls": "the same over TLS 1.3",
    "get": "one head again and again",
}
SIZES = {
    "start_mib": "just started",
    "idle_mib": "with {idle_connections:,.0f} idle connections",
    "cache_mib": "with {cache_entries:,.0f} cached tokens ({stored_tokens:,.0f} stored)",
}


def quoted_tables(results: Results) -> list[Table]:
    """All of them."""
    tables = (comparison(results), sizing(results), against_aiohttp(results))
    return [table for table in tables if table.rows]


def comparison(results: Results) -> Table:
    """CPU per request of others over the gateway's."""
    measured = {one.workload for one in results.samples}
    workloads = {name: title for name, title in QUOTED.items() if name in measured}

    def shown(other: str, workload: str) -> str:
        ours = by_round(results, GATEWAY, workload, cpu_us)
        return show_figure(ratio(by_round(results, other, workload, cpu_us), ours))

    rows = [
        (title, *(shown(name, workload) for workload in workloads))
        for name, title in COMPARED.items()
    ]
    rows = [row for row in rows if set(row[1:]) != {DASH}]
    columns = ("CPU per request, over the gateway's", *workloads.values())
    note = f"{provenance(results)} {doubts(results)}".strip()
    return Table("comparison", "Beside others", columns, tuple(rows), note)


def against_aiohttp(results: Results) -> Table:
    """What the protocol of our own is for: each workload beside a proxy on plain aiohttp."""
    rows = []
    for workload in WORKLOADS:
        take = bytes_per_s if workload.counts_bytes else requests_per_s
        speed, cpu = (
            [by_round(results, subject, workload.name, taken) for subject in (GATEWAY, AIOHTTP)]
            for taken in (take, lambda one: one.cpu_us)
        )
        figure = ratio(*speed)
        if figure:
            shown = (show_figure(summarise(one.values())) for one in cpu)
            rows.append((workload.title, show_figure(figure), *shown))
    columns = ("workload", "throughput over aiohttp's", "CPU µs/request", "aiohttp's")
    return Table("aiohttp", "Beside plain aiohttp", columns, tuple(rows))


def sizing(results: Results) -> Table:
    """Memory and CPU time to plan with."""
    counts = {name: one.values[0] for name, one in results.measurements.items() if one.values}
    rows = [
        (
            f"resident memory, {title.format_map(counts)}",
            f"{show_figure(summarise(measured.values))} MiB",
        )
        for name, title in SIZES.items()
        if (measured := results.measurements.get(name))
    ]
    for workload, title in QUOTED.items():
        if cpu := summarise(by_round(results, GATEWAY, workload, cpu_us).values()):
            rows.append(
                (f"CPU time of a GET with a cached token, {title}", f"{show_figure(cpu)} µs")
            )
    columns = ("of a process", "measured")
    return Table("sizing", "Sizing", columns, tuple(rows), provenance(results))


def provenance(results: Results) -> str:
    """Machine, day and tree of the measurement."""
    machine = results.machine
    virtual = ", virtual" if machine.is_virtual else ""
    when = f"{machine.date[:10]}, commit {machine.commit or 'unknown'}"
    return f"One worker, {machine.cores} cores{virtual}, {when}."


def stores_table(results: StoreResults) -> Table:
    """Stores full of tokens: their size, look-ups that miss the cache, and tokens issued."""

    def show(calls: Calls | None) -> tuple[str, str]:
        if calls is None:
            return DASH, DASH
        return f"{calls.per_s:,.0f}", f"{calls.p99_us / 1000:.1f} ms"

    rows = tuple(
        (f"{one.name}, {one.place}", f"{one.bytes_per_token} bytes",
         *show(one.lookup_at_once), *show(one.issue))
        for one in results.stores
    )  # fmt: skip
    columns = ("store", "per token", "look-ups/s", "p99", "issued/s", "p99")
    note = (
        f"Measured on {results.date} at commit {results.commit}, with {results.tokens:,} tokens, "
        f"{results.at_once} calls at once."
    )
    return Table("stores", "Stores full of tokens", columns, rows, note)
