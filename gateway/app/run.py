"""Run a gateway process until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import ssl
import sys

import uvloop
from aiohttp import http_parser

from gateway import __version__
from gateway.app.gateway import Gateway
from gateway.config import Config
from gateway.oauth.models import StoreError

_log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit status of the process."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if not has_c_parser():
        _log.error(
            "aiohttp's C parser is missing, and several request smuggling advisories concern "
            "its pure-Python one; install an aiohttp wheel for this platform"
        )
        return 1
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


def has_c_parser() -> bool:
    """Whether aiohttp parses requests by llhttp."""
    parser: type = http_parser.HttpRequestParser
    return parser is not http_parser.HttpRequestParserPy


async def _serve(config: Config) -> int:
    gateway = Gateway(config)
    try:
        await gateway.start()
    except (StoreError, OSError, ssl.SSLError) as error:
        _log.error("the gateway did not start: %s", error)
        return 1
    # What was made so far stays: the garbage collector need not look at it again.
    gc.freeze()
    _announce(config)
    delay_s = await _wait_for_signal(config.shutdown.delay)
    _log.info("draining: %g s with readiness down, then %g s", delay_s, config.shutdown.grace)
    draining = asyncio.create_task(gateway.drain(delay_s=delay_s, grace_s=config.shutdown.grace))
    _on_signals(draining.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await draining
    await gateway.stop()
    _log.info("stopped")
    return 0


async def _wait_for_signal(delay_s: float) -> float:
    """How long to stay up with readiness down: a terminal's Ctrl-C has no load balancer."""
    told: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def tell(wait_s: float) -> None:
        if not told.done():
            told.set_result(wait_s)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, tell, delay_s)
    loop.add_signal_handler(signal.SIGINT, tell, 0.0)
    return await told


def _on_signals(cut_short: object) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, cut_short)  # type: ignore[arg-type]


def _announce(config: Config) -> None:
    scheme = "https" if config.listen.tls else "http"
    _log.info(
        "gateway %s listens on %s://%s:%d, admin on http://%s:%d",
        __version__,
        scheme,
        config.listen.host,
        config.listen.port,
        config.admin.host,
        config.admin.port,
    )
    if config.provider.registration.mode == "open":
        _log.warning(
            "OPEN REGISTRATION: anybody who reaches %s can create clients and get tokens. "
            "Set provider.registration.mode to `token` or `off`.",
            config.provider.create_client_path,
        )
    if config.admin.token is None:
        _log.info("the admin API is off: admin.token is not set")


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
