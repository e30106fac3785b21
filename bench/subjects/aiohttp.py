"""Proxies within aiohttp: `bench/plain_aiohttp.py`, and `proxy_handler` of this project."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.processes import Launch
from bench.subjects.gateway import write_gateway_config
from bench.subjects.subject import Settings, Site, Subject, Tool

EXAMPLES = Path(__file__).parents[2] / "examples"


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


def _launch_handler(site: Site) -> Launch:
    config = write_gateway_config(site, "off")
    # As the gateway, by the wheel on PYTHONPATH.
    program = (sys.executable, "-P", str(EXAMPLES / "aiohttp_proxy.py"))
    argv = (*program, str(config), f"http://{site.origin}", str(site.port))
    return Launch(argv, ready_port=site.port)


HANDLER = Subject(
    name="aiohttp-proxy-handler",
    title="gateway.aiohttp (bearer_middleware, proxy_handler)",
    tool=PLAIN.tool,
    settings=Settings(
        auth="bearer token from the process' cache (1 min), as the gateway",
        metrics="on",
        buffering="streams above 64 KiB",
        limits="aiohttp's",
        retries="aiohttp's: idempotent requests on a closed connection, once",
    ),
    launch=_launch_handler,
    checks_tokens=True,
    workloads=frozenset({"varied", "get", "post", "16k", "100k", "1m", "miss"}),
)
