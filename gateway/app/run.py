"""Run a gateway process until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from aiohttp import http_parser

from gateway import __version__
from gateway.app.build.listeners import client_limits
from gateway.app.gateway import Gateway
from gateway.app.logs import count_dropped_lines, set_log_format, set_up_logging
from gateway.app.process import (
    keep_what_is_made,
    let_threads_go,
    return_large_blocks,
    stop_requested,
)
from gateway.app.service import Service
from gateway.app.start_errors import StartError
from gateway.app.supervisor import Supervisor
from gateway.app.worker import work_forked
from gateway.config import Config, LoadedConfig
from gateway.downstream.sockets import address_of
from gateway.downstream.systemd import Activated, take_activated
from gateway.oauth.models import StoreError
from gateway.workers.forks import ForkServer
from gateway.workers.group import WorkerStartError

_log = logging.getLogger(__name__)


def run(loaded: LoadedConfig) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit status of the process.

    On SIGHUP the configuration is reloaded from its file.
    """
    _raise_descriptor_limit()
    problem: OSError | None = None
    try:
        activated = take_activated(os.environ)
    except OSError as error:
        activated, problem = Activated(), error
    # Before there are threads.
    forks = None
    if loaded.config.workers > 1:
        # Sockets of systemd come with the request for each worker.
        forks = ForkServer.start(work_forked, prepare=activated.close)
    set_up_logging()
    set_log_format(loaded.config.log.format)
    if not has_c_parser():
        _log.error(
            "aiohttp's C parser is missing, and several request smuggling advisories concern "
            "its pure-Python one; install an aiohttp wheel for this platform"
        )
        return 1
    if problem is not None:
        _log.error("the gateway did not start: %s", problem)
        return 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(let_threads_go(_serve(loaded, activated, forks)))


def has_c_parser() -> bool:
    """Whether aiohttp parses requests by llhttp."""
    parser: type = http_parser.HttpRequestParser
    return parser is not http_parser.HttpRequestParserPy


async def _serve(
    loaded: LoadedConfig, activated: Activated | None = None, forks: ForkServer | None = None
) -> int:
    config, gateway = loaded.config, _make_gateway(loaded, activated, forks)
    count_dropped_lines(gateway.metrics.process.log_dropped.inc)
    # Until it serves, these must not end it.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # From now on, so that there is no moment at which a signal would not end it in order.
    reported = _on_signal(lambda: gateway.config.shutdown.delay)
    starting = asyncio.create_task(gateway.start())
    begun: list[asyncio.Future[Any]] = [starting, reported]
    await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()  # which closes what it opened
    try:
        await starting
    except asyncio.CancelledError:
        _log.info("stopped before it had started")
        return 0
    except (StoreError, OSError, ssl.SSLError, WorkerStartError) as error:
        _log.error("the gateway did not start: %s", _locate(error, loaded))
        return 1
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, gateway.log_level.toggle)
    return_large_blocks()
    keep_what_is_made()
    _announce(config, activated or Activated())
    _warn_of_few_descriptors(config)
    failing = asyncio.create_task(gateway.failure())
    _reload_on_signal(gateway)
    ends: list[asyncio.Future[Any]] = [failing, reported]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if failing.done():
        _log.error("fatal: %s", failing.result())
        await gateway.stop()
        return 1
    failing.cancel()
    delay_s, grace_s = reported.result(), gateway.config.shutdown.grace
    _log.info("draining: %g s with readiness down, then %g s", delay_s, grace_s)
    draining = asyncio.create_task(gateway.drain(delay_s=delay_s, grace_s=grace_s))
    _on_next_signal(draining.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await draining
    await gateway.stop()
    _log.info("stopped")
    return 0


def _locate(error: Exception, loaded: LoadedConfig) -> object:
    """An error with the file, line and key that it is about, where it says."""
    match error:
        case StartError():
            return loaded.problem(error.place, error.reason)
        case WorkerStartError() if error.place:
            return loaded.problem(error.place, str(error))
        case StoreError():
            return loaded.problem(("store",), str(error))
        case _:
            return error


def _make_gateway(
    loaded: LoadedConfig, activated: Activated | None, forks: ForkServer | None
) -> Service:
    if loaded.config.workers == 1:
        return Gateway(loaded.config, loaded=loaded, activated=activated)
    return Supervisor(loaded.config, loaded=loaded, activated=activated, forks=forks)


def _reload_on_signal(gateway: Service) -> None:
    reloader = gateway.reloader
    if reloader is not None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, reloader.request, "signal")


def _on_signal(delay_s: Callable[[], float]) -> asyncio.Future[float]:
    """Done at a signal to stop. How long to stay up with readiness down: a terminal's Ctrl-C has
    no load balancer."""
    loop = asyncio.get_running_loop()
    reported: asyncio.Future[float] = loop.create_future()

    def report(wait_s: Callable[[], float]) -> None:
        if not reported.done():
            reported.set_result(wait_s())

    loop.add_signal_handler(signal.SIGTERM, report, delay_s)
    loop.add_signal_handler(signal.SIGINT, report, lambda: 0.0)
    if stop_requested():
        report(lambda: 0.0)
    return reported


def _on_next_signal(cut_short: object) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, cut_short)  # type: ignore[arg-type]


def authority(host: str, port: int) -> str:
    """Return `HOST:PORT` as in a URL: IPv6 addresses in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _announce(config: Config, activated: Activated) -> None:
    scheme = "https" if config.listen.tls else "http"
    listen, own = config.listen, []
    if listen.port is not None:
        own.append(f"{scheme}://{authority(listen.host, listen.port)}")
    if listen.unix is not None:
        own.append(f"unix:{listen.unix.path}")
    workers = f", {config.workers} workers" if config.workers > 1 else ""
    _log.info(
        "gateway %s listens on %s, admin on %s%s",
        __version__,
        _name_sockets(activated.data, scheme) or " and ".join(own),
        _name_sockets(activated.admin, "http")
        or f"http://{authority(config.admin.host, config.admin.port)}",
        workers,
    )
    if listen.http_redirect is not None:
        redirect = listen.http_redirect
        _log.info("redirects to https on http://%s", authority(redirect.host, redirect.port))
    if config.authz is not None:
        _log.info(
            "external authorization (%s) listens on http://%s%s",
            config.authz.dialect, authority(config.authz.host, config.authz.port),
            config.authz.path,
        )  # fmt: skip
    if config.provider.registration.mode == "open":
        _log.warning(
            "OPEN REGISTRATION: any client that reaches %s can register and get tokens. "
            "Set provider.registration.mode to `token` or `off`.",
            config.provider.create_client_path,
        )
    if config.admin.token is None:
        _log.info(
            "admin.token is not set: the admin API takes only tokens of "
            "`gateway admin token create`"
        )


def _name_sockets(activated: Sequence[socket.socket], scheme: str) -> str:
    """The addresses of sockets of systemd, in words."""
    names = []
    for host, port in map(address_of, activated):
        names.append(f"{scheme}://{authority(host, port)}" if port else f"unix:{host}")
    return " and ".join(f"{name} (systemd)" for name in names)


def _warn_of_few_descriptors(config: Config) -> None:
    wanted, taken = config.listen.max_connections, client_limits(config).max_connections
    if taken * config.workers < wanted:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        _log.warning(
            "listen.max_connections is %d, but %d open files (ulimit -n) allow %d in each process: "
            "further ones get 503. Raise LimitNOFILE or `ulimit -Hn`.",
            wanted, soft, taken,
        )  # fmt: skip


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
