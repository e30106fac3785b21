"""Caddy: reverse_proxy, and forward_auth in front of it."""

from __future__ import annotations

from bench.processes import Launch
from bench.subjects.subject import Settings, Site, Subject, Tool

CADDY = Tool("caddy", "apt-get install caddy", ("version",))
RETRIES = "default: off"


def _launch(site: Site, config: str) -> Launch:
    tls = f"tls {site.certificate}/cert.pem {site.certificate}/key.pem" if site.is_tls else ""
    path = site.write_config(config, SCHEME="https" if site.is_tls else "http", TLS=tls)
    home = str(site.directory)
    return Launch(
        ("caddy", "run", "--adapter", "caddyfile", "--config", str(path)),
        ready_port=site.port,
        is_tls=site.is_tls,
        environment={
            "GOMAXPROCS": "1",
            "HOME": home,
            "XDG_DATA_HOME": home,
            "XDG_CONFIG_HOME": home,
        },
    )


PLAIN = Subject(
    name="caddy",
    title="Caddy, reverse_proxy",
    tool=CADDY,
    settings=Settings(auth="none", retries=RETRIES),
    launch=lambda site: _launch(site, "Caddyfile"),
    checks_tokens=False,
    workloads=frozenset({"varied"}),
)
FORWARD_AUTH = Subject(
    name="caddy-forward-auth",
    title="Caddy, forward_auth",
    tool=CADDY,
    settings=Settings(
        auth="subrequest to an endpoint that answers 200, each time: Caddy caches no verdict",
        retries=RETRIES,
    ),
    launch=lambda site: _launch(site, "Caddyfile-forward-auth"),
    checks_tokens=True,
    workloads=frozenset({"varied", "get", "100k", "tls", "miss"}),
)
