"""The plain aiohttp proxy of `bench/plain_aiohttp.py`."""

from __future__ import annotations

import sys

from bench.processes import Launch
from bench.subjects.subject import Settings, Site, Subject, Tool


def _launch(site: Site) -> Launch:
    argv = (sys.executable, "-m", "bench.plain_aiohttp", str(site.port), site.origin, site.auth)
    certificate = (str(site.certificate),) if site.is_tls else ()
    return Launch((*argv, *certificate), ready_port=site.port, is_tls=site.is_tls)


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
    workloads=frozenset({"varied", "get", "post", "16k", "100k", "1m", "tls", "miss"}),
)
