"""The plain aiohttp proxy of `bench/plain_aiohttp.py`."""

from __future__ import annotations

import sys

from bench.processes import Launch
from bench.subjects.subject import Settings, Site, Subject, Tool
from bench.workloads import BODIES


def _launch(site: Site) -> Launch:
    argv = (sys.executable, "-m", "bench.plain_aiohttp", str(site.port), site.origin, site.auth)
    return Launch(argv, ready_port=site.port)


PLAIN = Subject(
    name="aiohttp",
    title="plain aiohttp (Application, ClientSession)",
    tool=Tool(sys.executable, "make", ("-c", "import aiohttp; print(aiohttp.__version__)")),
    settings=Settings(
        auth="a dict, filled from the endpoint, 1 min",
        buffering="streams above 64 KiB",
        limits="aiohttp's",
    ),
    launch=_launch,
    checks_tokens=True,
    workloads=BODIES | {"miss"},
)
