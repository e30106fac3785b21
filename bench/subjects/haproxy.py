"""HAProxy as a plain proxy: it has no auth subrequest of its own."""

from __future__ import annotations

from bench.processes import Launch
from bench.subjects.subject import Settings, Site, Subject, Tool
from bench.workloads import BODIES


def _launch(site: Site) -> Launch:
    path = site.write_config("haproxy.cfg")
    # -db: in the foreground, one process.
    return Launch(("haproxy", "-db", "-f", str(path)), ready_port=site.port)


PLAIN = Subject(
    name="haproxy",
    title="HAProxy, plain proxy",
    tool=Tool("haproxy", "apt-get install haproxy", ("-v",)),
    settings=Settings(
        auth="none",
        metrics="its own counters",
        limits="defaults: head 16 KiB",
        retries="default: 3, of connecting only",
    ),
    launch=_launch,
    checks_tokens=False,
    workloads=BODIES,
)
