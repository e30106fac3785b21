"""nginx: as a plain proxy, and with auth_request, whose verdict is cached or not."""

from __future__ import annotations

from bench.processes import Launch
from bench.subjects.subject import Settings, Site, Subject, Tool
from bench.workloads import BODIES

NGINX = Tool("nginx", "apt-get install nginx-light", ("-v",))
BUFFERED = "answers in memory, up to 32 KiB ahead"
CACHED_AUTH = "subrequest, verdict cached 1 min by the Authorization field, file kept open"
LIMITS = "defaults: head 32 KiB, body 1 MiB"
RETRIES = "default: proxy_next_upstream, but there is one server"


def launch_nginx(site: Site, config: str, **values: object) -> Launch:
    """nginx in the foreground, with a configuration of `configs/`."""
    for included in ("nginx-process.conf", "nginx-http.conf", "nginx-checked.conf"):
        site.write_config(included)
    path = site.write_config(config, **values)
    argv = ("nginx", "-p", str(site.directory), "-c", str(path), "-e", "stderr")
    return Launch(argv, ready_port=site.port)


PLAIN = Subject(
    name="nginx",
    title="nginx, plain proxy",
    tool=NGINX,
    settings=Settings(auth="none", buffering=BUFFERED, limits=LIMITS, retries=RETRIES),
    launch=lambda site: launch_nginx(site, "nginx.conf"),
    checks_tokens=False,
    workloads=BODIES,
)
AUTH_CACHED = Subject(
    name="nginx-auth-cached",
    title="nginx, auth_request cached",
    tool=NGINX,
    settings=Settings(
        auth=CACHED_AUTH,
        buffering=BUFFERED,
        limits=LIMITS,
        retries=RETRIES,
    ),
    launch=lambda site: launch_nginx(site, "nginx-auth-cached.conf", ACCESS_LOG="off"),
    checks_tokens=True,
    workloads=BODIES | {"distinct"},
)
AUTH_CACHED_LOGGED = Subject(
    name="nginx-auth-cached-logged",
    title="nginx, auth_request cached, access log on",
    tool=NGINX,
    settings=Settings(
        auth=CACHED_AUTH,
        access_log="to a file, unbuffered (default)",
        buffering=BUFFERED,
        limits=LIMITS,
        retries=RETRIES,
    ),
    launch=lambda site: launch_nginx(
        site, "nginx-auth-cached.conf", ACCESS_LOG=f"{site.access_log} combined"
    ),
    checks_tokens=True,
    workloads=frozenset({"get"}),
)
AUTH = Subject(
    name="nginx-auth",
    title="nginx, auth_request uncached",
    tool=NGINX,
    settings=Settings(
        auth="subrequest to an endpoint that answers 200, each time",
        buffering=BUFFERED,
        limits=LIMITS,
        retries=RETRIES,
    ),
    launch=lambda site: launch_nginx(site, "nginx-auth.conf"),
    checks_tokens=True,
    workloads=BODIES | {"miss"},
)
