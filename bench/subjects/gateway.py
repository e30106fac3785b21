"""This gateway, of the tree that the bench stands in: by its command line and YAML only.

`make bench` puts the wheel of the tree, whose hot path is compiled, on PYTHONPATH, and -P
keeps the sources out of its way.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from bench.processes import Launch
from bench.subjects.subject import Settings, Site, Subject, Tool
from bench.workloads import PLAIN, SMALL_PATH, TLS

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


def write_gateway_config(
    site: Site,
    access_log: object,
    *,
    workers: int = 1,
    more: Mapping[str, object] = MappingProxyType({}),
) -> Path:
    """The gateway's configuration; `more` fills in what has a default here."""
    tls = f", tls: {{cert: {site.certificate}/cert.pem, key: {site.certificate}/key.pem}}"
    values: dict[str, object] = {
        "ACCESS_LOG": access_log,
        "WORKERS": workers,
        "TLS": tls if site.is_tls else "",
        "TARGETS": f'"http://{site.origin}"',
        "MORE_UPSTREAMS": "",
        "MORE_ROUTES": "",
        **more,
    }
    return site.write_config(CONFIG, **values)


def launch_gateway(site: Site, *, access_log: str | None = None, workers: int = 1) -> Launch:
    """The gateway on the site's store; `access_log` is a path or `off`, the site's by default."""
    return run_gateway(
        site, write_gateway_config(site, access_log or site.access_log, workers=workers)
    )


def write_authz_config(site: Site, port: int, dialect: str = "envoy") -> Path:
    """The configuration of a gateway that another proxy asks on a port."""
    return site.write_config(
        "gateway-authz.yaml", AUTHZ_PORT=port, DIALECT=dialect, ACCESS_LOG=site.access_log
    )


def asked(site: Site, dialect: str, proxy: tuple[str, ...]) -> Launch:
    """A proxy, and a gateway that it asks, as one subject."""
    config = write_authz_config(site, site.authz_port, dialect)
    gateway = shlex.join((*COMMAND, "run", "-c", str(config)))
    both = f"trap 'kill $a $b; wait' TERM; {gateway} & a=$!; {shlex.join(proxy)} & b=$!; wait"
    # Without a token it is 401 as soon as both are there.
    return Launch(("sh", "-c", both), ready_port=site.port, ready_path=SMALL_PATH, ready_status=401)


def run_gateway(site: Site, config: Path) -> Launch:
    """The gateway with a configuration."""
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
        tls="TLS 1.3 in the workloads that say so",
    ),
    launch=launch_gateway,
    checks_tokens=True,
    workloads=PLAIN | TLS | {"miss"},
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
    workloads=frozenset({"varied"}),
)
DECISIONS = Subject(
    name="gateway-decisions",
    title="this gateway, asked by another proxy (ext_authz)",
    tool=TOOL,
    settings=Settings(
        auth=AUTH,
        access_log="JSON lines to a file",
        metrics="on",
        limits=SAFETIES,
        retries="none: it forwards nothing",
    ),
    launch=lambda site: run_gateway(site, write_authz_config(site, site.port)),
    checks_tokens=True,
    workloads=frozenset({"varied", "get"}),
    prefix="/authz",
    body=b"",
)
