"""HAProxy as a plain proxy: it has no auth subrequest of its own."""

from __future__ import annotations

from bench.processes import Launch
from bench.subjects.subject import Settings, Site, Subject, Tool


def _launch(site: Site) -> Launch:
    ssl = f"ssl crt {site.certificate}/both.pem ssl-min-ver TLSv1.3" if site.is_tls else ""
    path = site.write_config("haproxy.cfg", SSL=ssl)
    # -db: in the foreground, one process.
    return Launch(("haproxy", "-db", "-f", str(path)), ready_port=site.port, is_tls=site.is_tls)


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
    workloads=frozenset({"varied", "100k", "tls"}),
)
