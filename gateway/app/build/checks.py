"""Checks that what a configuration names can be used: files, directories, packages, addresses.

The same checks run before a start, before a reload, and in `gateway check`, so that all that is
missing is reported at once, each with file, line and key.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path as FilePath

from gateway import acme
from gateway.app import tracing
from gateway.app.build.clients import find_wrong_clients
from gateway.app.build.listeners import build_router
from gateway.app.build.provider import (
    introspection_servers,
    jwt_issuers,
    provider_policy,
    signing_policy,
    workload_rules,
)
from gateway.app.build.tls import (
    UpstreamContexts,
    certificate_expiries,
    listen_tls,
    private_context,
)
from gateway.app.build.upstreams import build_upstreams
from gateway.config import Config, ConfigProblem, LoadedConfig, named_files
from gateway.config.acme import Acme
from gateway.config.advice import find_warnings
from gateway.config.problems import Path
from gateway.config.workloads import NO_CERTIFICATES, unknown_issuer
from gateway.downstream.sockets import close_sockets, open_sockets
from gateway.http import h2
from gateway.metrics import Metrics
from gateway.store import HOW_TO_INSTALL_POSTGRES
from gateway.store_url import NoStoreUrl, PostgresUrl, SqliteUrl, parse_store_url
from gateway.web.assets import load_picture

Finding = tuple[Path, str]


def find_unusable_files(loaded: LoadedConfig) -> list[ConfigProblem]:
    """Find what a configuration names and a gateway could not use: files, directories, packages,
    hosts to listen on, clients."""
    problems = find_wrong_clients(loaded)
    problems += [
        loaded.problem(place, problem)
        for find in (
            _find_moved_store,
            _find_unusable_places,
            _find_missing_packages,
            _find_unmet_workloads,
            _find_unmet_assertions,
        )
        for place, problem in find(loaded)
    ]
    for place, path in named_files(loaded.config):
        try:
            path.read_bytes()
        except OSError as error:
            problems.append(loaded.problem(place, f"{path} can't be read: {error.strerror}"))
    if problems:
        return problems
    makers: list[tuple[Path, Callable[[], object]]] = [
        (("listen", "tls"), lambda: listen_tls(loaded.config))
    ]
    if (logo := loaded.config.provider.users.pages.logo) is not None:
        place = ("provider", "users", "pages", "logo")
        makers.append((place, lambda: load_picture(FilePath(logo))))
    makers += (
        (("jwt_issuers", at, "ca"), partial(private_context, issuer.ca))
        for at, issuer in enumerate(loaded.config.jwt_issuers)
        if issuer.ca is not None
    )
    contexts = UpstreamContexts()
    for name, settings in loaded.config.upstreams.items():
        makers.append((("upstreams", name, "tls"), partial(contexts.of, settings)))
    for place, make in makers:
        try:
            make()
        except OSError as error:
            problems.append(loaded.problem(place, str(error)))
    return problems


def find_unbuildable(loaded: LoadedConfig) -> list[ConfigProblem]:
    """Build what serves a configuration, and find what fails of it: a check that the validation
    of the values lacks."""
    config = loaded.config
    builders: list[tuple[Path, Callable[[], object]]] = [
        (("provider",), lambda: (provider_policy(config), signing_policy(config))),
        (("jwt_issuers",), lambda: jwt_issuers(config)),
        (("workloads",), lambda: workload_rules(config)),
        (("introspection_servers",), lambda: introspection_servers(config)),
        (("routes",), lambda: _build_router(config)),
    ]
    problems = []
    for place, build in builders:
        try:
            build()
        except (ValueError, TypeError, LookupError, ArithmeticError, OSError) as error:
            problems.append(loaded.problem(place, f"can't be used: {error}"))
    return problems


def _build_router(config: Config) -> object:
    metrics = Metrics()
    upstreams = build_upstreams(config, metrics)
    try:
        return build_router(config, upstreams, metrics)
    finally:
        for upstream in upstreams.values():
            upstream.close()


def _find_moved_store(loaded: LoadedConfig) -> Iterator[Finding]:
    """A store that an earlier version made in the current directory, where paths were relative to
    that: a new and empty one beside the configuration would lose every client."""
    url = parse_store_url(loaded.config.store)
    directory = FilePath(loaded.file).parent
    if not isinstance(url, SqliteUrl) or FilePath(url.path).exists():
        return
    before = FilePath(os.path.relpath(url.path, directory))
    if before.is_file() and ".." not in before.parts:
        yield (
            ("store",),
            f"there is no database at {url.path}, but one at {before.absolute()}: paths are "
            "relative to the configuration file; move it, or write its absolute path",
        )


def _find_unusable_places(loaded: LoadedConfig) -> Iterator[Finding]:
    """Places where a file will be made, which must be directories that can be written."""
    config = loaded.config
    makes: list[tuple[Path, str]] = []
    if config.access_log.path not in {"-", "off"}:
        makes.append((("access_log", "path"), config.access_log.path))
    for place, store in store_urls(config):
        where = parse_store_url(store)
        if isinstance(where, SqliteUrl):
            makes.append((place, where.path))
            continue
        if isinstance(where, NoStoreUrl):
            continue
        for file in (where.ca, where.cert, where.key):
            if file is not None and not os.access(file, os.R_OK):
                yield place, f"{file} can't be read"
    has_sealed = config.provider.token_format == "jwt" or _acme(config) is not None
    if has_sealed and config.provider.seal_key is None:
        makes.append((("provider", "seal_key_file"), config.provider.seal_key_file))
    if config.listen.unix is not None:
        makes.append((("listen", "unix", "path"), config.listen.unix.path))
    for place, name in makes:
        if problem := _why_not_made(FilePath(name)):
            yield place, problem
    key_file = FilePath(config.provider.seal_key_file)
    if config.provider.seal_key is None and key_file.is_file() and not key_file.stat().st_size:
        yield ("provider", "seal_key_file"), f"{key_file} is empty, expected the secret"


def store_urls(config: Config) -> Iterator[tuple[Path, str]]:
    """Each store: the key that names it, and its URL."""
    yield ("store",), config.store
    if config.rate_limit is not None and config.rate_limit.store is not None:
        yield ("rate_limit", "store"), config.rate_limit.store
    if (section := _acme(config)) is not None and section.storage is not None:
        yield ("listen", "tls", "acme", "storage"), section.storage


def _why_not_made(path: FilePath) -> str:
    """Return why a file can't be made, or opened where it is there; nothing where it can."""
    directory = path.absolute().parent
    if not directory.is_dir():
        return f"there is no directory {directory}"
    if path.is_dir():
        return f"{path} is a directory, expected the path of a file"
    if not path.exists() and not os.access(directory, os.W_OK):
        return f"the directory {directory} can't be written"
    if path.is_file() and not os.access(path, os.R_OK):
        return f"{path} can't be read"
    return ""


def _acme(config: Config) -> Acme | None:
    return config.listen.tls.acme if config.listen.tls is not None else None


def _find_missing_packages(loaded: LoadedConfig) -> Iterator[Finding]:
    if loaded.config.listen.http2.enabled is True and not h2.is_available():
        yield (
            ("listen", "http2", "enabled"),
            f"needs a package that is not installed: {h2.HOW_TO_INSTALL}",
        )
    for place, store in store_urls(loaded.config):
        if isinstance(parse_store_url(store), PostgresUrl) and find_spec("asyncpg") is None:
            yield place, f"needs a package that is not installed: {HOW_TO_INSTALL_POSTGRES}"
    if _acme(loaded.config) is not None and not acme.is_available():
        yield (
            ("listen", "tls", "acme"),
            f"needs packages that are not installed: {acme.HOW_TO_INSTALL}",
        )
    if loaded.config.tracing is not None and find_spec("opentelemetry") is None:
        yield (
            ("tracing",),
            f"needs packages that are not installed: {tracing.HOW_TO_INSTALL}",
        )


def _find_unmet_workloads(loaded: LoadedConfig) -> Iterator[Finding]:
    """Rules for workloads whose issuers or certificates are not configured at all."""
    config = loaded.config
    tls = config.listen.tls
    takes_certificates = bool(
        config.provider.client_certificate_header or (tls is not None and tls.client_ca)
    )
    for at, rule in enumerate(config.workloads):
        if rule.issuer is not None and not config.jwt_issuers:
            yield ("workloads", at, "issuer"), unknown_issuer(rule.issuer)
        if rule.trust_domain is not None and not takes_certificates:
            yield ("workloads", at, "trust_domain"), NO_CERTIFICATES


def _find_unmet_assertions(loaded: LoadedConfig) -> Iterator[Finding]:
    """Rules for identity assertions without issuers."""
    if not loaded.config.jwt_issuers:
        for at, rule in enumerate(loaded.config.identity_assertions):
            yield ("identity_assertions", at, "issuer"), unknown_issuer(rule.issuer)


def listening_places(config: Config) -> Iterator[tuple[str, str, int]]:
    """Each address to listen on: the section that names it, host and port."""
    if config.listen.port is not None:
        yield "listen", config.listen.host, config.listen.port
    yield "admin", config.admin.host, config.admin.port
    if config.listen.http_redirect is not None:
        redirect = config.listen.http_redirect
        yield "listen.http_redirect", redirect.host, redirect.port
    if config.authz is not None:
        yield "authz", config.authz.host, config.authz.port


def describe_bind_error(section: str, error: OSError) -> Finding:
    """Return the key of the configuration that an address can't be listened on for, and why."""
    key = "port" if error.errno in {errno.EADDRINUSE, errno.EACCES, errno.EPERM} else "host"
    return (*section.split("."), key), str(error.strerror or error)


def find_unusable_addresses(
    loaded: LoadedConfig,
) -> tuple[list[ConfigProblem], list[ConfigProblem]]:
    """Try to listen where a configuration says.

    Returns what fails here whatever else runs, and ports that are in use or that this user may
    not take: the gateway that is to be reloaded may hold them, and systemd may pass them.
    """
    problems: list[ConfigProblem] = []
    occupied: list[ConfigProblem] = []
    for section, host, port in listening_places(loaded.config):
        try:
            close_sockets(open_sockets(host, port))
        except OSError as error:
            place, text = describe_bind_error(section, error)
            (occupied if place[-1] == "port" else problems).append(loaded.problem(place, text))
    return problems, occupied


def find_cautions(loaded: LoadedConfig) -> list[ConfigProblem]:
    """Find what works, and is probably not meant, or not safe in production."""
    return [loaded.problem(place, text) for place, text in _cautions(loaded.config)]


def _cautions(config: Config) -> Iterator[Finding]:
    yield from find_warnings(config)
    now = time.time()
    for name, end in certificate_expiries(config).items():
        if end < now:
            yield (
                (*name.split(".", 1), "tls", "cert"),
                f"the certificate expired on {time.strftime('%Y-%m-%d', time.gmtime(end))}",
            )
    for place, file in _secret_files(config):
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) & (stat.S_IROTH | stat.S_IWOTH):
            yield place, f"{file} can be read by every user of this host, expected mode 0600"


def _secret_files(config: Config) -> Iterator[tuple[Path, FilePath]]:
    if config.provider.seal_key is None:
        yield ("provider", "seal_key_file"), FilePath(config.provider.seal_key_file)
    if config.listen.tls is not None and config.listen.tls.key is not None:
        yield ("listen", "tls", "key"), FilePath(config.listen.tls.key)


def is_gateway_at(host: str, port: int, *, timeout_s: float = 2.0) -> bool:
    """Whether an admin listener of a gateway responds at an address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    connection = HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/readyz", headers={"Host": f"localhost:{port}"})
        return b'"checks"' in connection.getresponse().read(65536)
    except (OSError, HTTPException, socket.gaierror):
        return False
    finally:
        connection.close()
