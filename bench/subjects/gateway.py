"""This gateway, of the tree that the bench stands in: by its command line and YAML only.

`make bench` puts the wheel of the tree, whose hot path is compiled, on PYTHONPATH, and -P
keeps the sources out of its way.
"""

from __future__ import annotations

import sys

from bench.processes import Launch
from bench.subjects.subject import Settings, Site, Subject, Tool
from bench.workloads import BODIES

COMMAND = (sys.executable, "-P", "-m", "gateway")
CONFIG = "gateway.yaml"
VERSION = """
import gateway, pathlib
is_compiled = any(pathlib.Path(gateway.__file__).parent.rglob("*.so"))
print(gateway.__version__ + ("+compiled" if is_compiled else "+interpreted"))
"""
TOOL = Tool(sys.executable, "make", ("-P", "-c", VERSION))
AUTH = "bearer token from the process' cache (1 min), scope checked on every request"
SAFETIES = "all at their defaults: head, fields, connections, deadlines"
RETRIES = "default: idempotent requests on a dead idle connection, once"


def launch_gateway(site: Site, *, access_log: str | None = None, workers: int = 1) -> Launch:
    """The gateway on the site's store; `access_log` is a path or `off`, the site's by default."""
    config = site.write_config(CONFIG, ACCESS_LOG=access_log or site.access_log, WORKERS=workers)
    return Launch(
        (*COMMAND, "run", "-c", str(config)),
        ready_port=site.admin_port,
        ready_path="/readyz",
        ready_status=200,
    )


GATEWAY = Subject(
    name="gateway",
    title="this gateway",
    tool=TOOL,
    settings=Settings(
        auth=AUTH,
        access_log="JSON lines to a file",
        metrics="on",
        limits=SAFETIES,
        retries=RETRIES,
    ),
    launch=launch_gateway,
    checks_tokens=True,
    workloads=BODIES | {"distinct", "miss"},
)
GATEWAY_NO_LOG = Subject(
    name="gateway-no-log",
    title="this gateway without an access log",
    tool=TOOL,
    settings=Settings(
        auth=AUTH,
        access_log="off",
        metrics="on: they can't be switched off",
        limits=SAFETIES,
        retries=RETRIES,
    ),
    launch=lambda site: launch_gateway(site, access_log="off"),
    checks_tokens=True,
    workloads=frozenset({"get"}),
)
