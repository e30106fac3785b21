"""nginx: as a plain proxy, and with auth_request, whose verdict is cached or not."""

from __future__ import annotations

from pathlib import Path

from bench.processes import Launch
from bench.subjects.gateway import asked
from bench.subjects.subject import Settings, Site, Subject, Tool
from bench.workloads import PLAIN as ANY
from bench.workloads import TLS

NGINX = Tool("nginx", "apt-get install nginx-light", ("-v",))
MODULES = "/usr/lib/nginx/modules"
LUA_MODULE = Tool(
    "nginx", "apt-get install libnginx-mod-http-lua", ("-v",),
    needs=(Path(MODULES, "ngx_http_lua_module.so"),),
)  # fmt: skip
BUFFERED = "answers in memory, up to 32 KiB ahead"
CACHED_AUTH = "subrequest, verdict cached 1 min by the Authorization field, file kept open"
LIMITS = "defaults: head 32 KiB, body 1 MiB"
RETRIES = "default: proxy_next_upstream, but there is one server"


def launch_nginx(site: Site, config: str, **values: object) -> Launch:
    """nginx in the foreground, with a configuration of `configs/`."""
    for included in ("nginx-process.conf", "nginx-http.conf", "nginx-checked.conf"):
        site.write_config(included)
    argv = _command(site, config, **values)
    return Launch(argv, ready_port=site.port, is_tls=site.is_tls)


def _command(site: Site, config: str, **values: object) -> tuple[str, ...]:
    path = site.write_config(config, SSL="ssl" if site.is_tls else "", **values)
    return ("nginx", "-p", str(site.directory), "-c", str(path), "-e", "stderr")


def _launch_asking(site: Site) -> Launch:
    launch_nginx(site, "nginx-auth.conf")  # for the files that are included
    return asked(site, "nginx", _command(site, "nginx-gateway.conf", AUTHZ_PORT=site.authz_port))


PLAIN = Subject(
    name="nginx",
    title="nginx, plain proxy",
    tool=NGINX,
    settings=Settings(auth="none", buffering=BUFFERED, limits=LIMITS, retries=RETRIES),
    launch=lambda site: launch_nginx(site, "nginx.conf"),
    checks_tokens=False,
    workloads=frozenset({"varied"}),
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
        tls="TLS 1.3 in the workloads that say so",
    ),
    launch=lambda site: launch_nginx(site, "nginx-auth-cached.conf", ACCESS_LOG="off"),
    checks_tokens=True,
    workloads=ANY | TLS,
    has_h2_port=True,
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
    workloads=frozenset({"varied"}),
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
    workloads=frozenset({"varied", "miss"}),
)
LUA = Subject(
    name="nginx-lua",
    title="nginx, Lua with a shared dictionary",
    tool=LUA_MODULE,
    settings=Settings(
        auth="verdict in lua_shared_dict, 1 min; subrequest where it is not known",
        buffering=BUFFERED,
        limits=LIMITS,
        retries=RETRIES,
    ),
    launch=lambda site: launch_nginx(site, "nginx-lua.conf", MODULES=MODULES),
    checks_tokens=True,
    workloads=frozenset({"varied", "distinct", "get"}),
)
ASKING = Subject(
    name="nginx-gateway",
    title="nginx, auth_request to this gateway",
    tool=NGINX,
    settings=Settings(
        auth="asks this gateway each time; both on one core, and counted together",
        access_log="of the gateway, to a file",
        metrics="of the gateway",
        buffering=BUFFERED,
        limits=LIMITS,
        retries=RETRIES,
    ),
    launch=_launch_asking,
    checks_tokens=True,
    workloads=frozenset({"varied"}),
)
