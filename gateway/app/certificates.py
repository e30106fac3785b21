"""Certificates by ACME, put together: what a process serves, and the issuer of a gateway."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress

from gateway.acme.certificates import Certificate, make_challenge_certificate
from gateway.acme.issuer import Issuer
from gateway.acme.settings import AcmeSettings
from gateway.acme.state import AcmeState, Challenge
from gateway.acme.watch import WATCH_S, AcmeWatch
from gateway.app.build.acme import acme_settings
from gateway.app.build.listeners import http2_settings
from gateway.app.build.tls import certificate_context, challenge_context
from gateway.app.periodic import PeriodicTasks
from gateway.app.provider import Provider
from gateway.config import Config
from gateway.downstream.server_names import ServerNames
from gateway.downstream.tls_challenges import TlsChallenges
from gateway.metrics import Metrics
from gateway.oauth.models import StoreUnavailableError
from gateway.proxy.http_redirect import HttpChallenges
from gateway.store import open_store

CHECK_S = 5.0
"""How often the issuer looks at what is due."""
START_S = 5.0
"""How long a start waits for the certificates in the store."""

_log = logging.getLogger(__name__)


async def open_state(config: Config, provider: Provider, stack: AsyncExitStack) -> AcmeState:
    """Return the records of ACME, in the store that the configuration names for them. Raises
    `StoreError`."""
    tls = config.listen.tls
    assert tls is not None
    assert tls.acme is not None
    store = provider.store
    if tls.acme.storage is not None:
        store = await open_store(tls.acme.storage)
        stack.push_async_callback(store.close)
    return AcmeState(store.records, provider.seal)


class ServedCertificates:
    """Holds what a process serves: certificates by name, and the challenges of the issuer."""

    def __init__(
        self,
        state: AcmeState,
        settings: AcmeSettings,
        metrics: Metrics,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called when other certificates are served."""
        self._metrics = metrics.acme
        self._on_change = on_change
        self._watch = AcmeWatch(
            state,
            settings,
            metrics.acme,
            on_certificates=self._serve,
            on_challenges=self._challenge,
        )
        self._tasks = PeriodicTasks()
        self._served: tuple[Config, ServerNames] | None = None
        self._current: Mapping[str, Certificate] = {}
        self.tls_challenges = TlsChallenges()
        self.http_challenges = HttpChallenges()

    async def start(self) -> None:
        """Read what there is, unless the store takes too long, and watch it from then on."""
        with suppress(StoreUnavailableError, TimeoutError):
            async with asyncio.timeout(START_S):
                await self._watch.look()
        self._tasks.repeat(self._watch.look, WATCH_S)

    async def stop(self) -> None:
        """Watch the store no more."""
        await self._tasks.stop()

    def name_contexts(self, config: Config, base: ssl.SSLContext) -> ServerNames:
        """Make the contexts of a configuration for what is served now, behind `base`. Takes its
        time."""
        tls = config.listen.tls
        assert tls is not None
        names = ServerNames(base, has_certificate=tls.cert is not None)
        certificates = self._current
        names.use(certificates, self._prepare(config, names, certificates))
        return names

    def adopt(self, config: Config, names: ServerNames) -> None:
        """Keep the contexts of this configuration up to date from now on."""
        self._served = config, names
        settings = acme_settings(config)
        if settings is not None:
            self._watch.reconfigure(settings)

    def expiries(self) -> dict[str, float]:
        """Return when the certificates that are served end, Unix seconds, by what they are for."""
        return {f"listen/{name}": one.not_after for name, one in self._current.items()}

    async def _serve(self, certificates: Mapping[str, Certificate]) -> None:
        if self._served is not None:
            config, names = self._served
            contexts = await asyncio.to_thread(self._prepare, config, names, certificates)
            certificates = {name: certificates[name] for name in contexts}
            names.use(certificates, contexts)
        self._current = certificates
        if self._served is not None:
            self._on_change()

    def _prepare(
        self, config: Config, names: ServerNames, certificates: Mapping[str, Certificate]
    ) -> dict[str, ssl.SSLContext]:
        has_http2 = http2_settings(config) is not None

        def make(name: str) -> ssl.SSLContext:
            one = certificates[name]
            return certificate_context(config, one.chain + one.key, http2=has_http2)

        return names.prepare(certificates, make)

    async def _challenge(self, challenges: Sequence[Challenge]) -> None:
        by_token = {one.token: one.key_authorization for one in challenges if one.type == "http-01"}
        self.http_challenges.by_token = by_token
        tls = [one for one in challenges if one.type == "tls-alpn-01"]
        self.tls_challenges.replace(await asyncio.to_thread(_make_challenge_contexts, tls))


def _make_challenge_contexts(challenges: Sequence[Challenge]) -> dict[str, ssl.SSLContext]:
    return {
        one.domain: challenge_context(
            "".join(make_challenge_certificate(one.domain, one.key_authorization))
        )
        for one in challenges
    }


async def open_certificates(
    config: Config,
    provider: Provider,
    metrics: Metrics,
    stack: AsyncExitStack,
    *,
    on_change: Callable[[], None],
) -> ServedCertificates | None:
    """Start to serve certificates by ACME; None where that is not configured. `stack` stops it.
    Raises `StoreError`."""
    settings = acme_settings(config)
    if settings is None:
        return None
    state = await open_state(config, provider, stack)
    certificates = ServedCertificates(state, settings, metrics, on_change)
    await certificates.start()
    stack.push_async_callback(certificates.stop)
    return certificates


class IssuerTask:
    """The issuer of a gateway, as a periodic task. Use as `await start()`, then `await stop()`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._stack = AsyncExitStack()
        self._tasks = PeriodicTasks()
        self._issuer: Issuer | None = None

    async def start(self, config: Config, provider: Provider) -> None:
        """Start it, if ACME is configured. Raises `StoreError`."""
        settings = acme_settings(config)
        if settings is None:
            return
        self._stack.push_async_callback(self._tasks.stop)
        state = await open_state(config, provider, self._stack)
        self._issuer = Issuer(state, settings, self._metrics.acme)
        self._tasks.repeat(self._issuer.check, CHECK_S)

    def reconfigure(self, config: Config) -> None:
        """Apply another configuration from the next round on."""
        settings = acme_settings(config)
        if self._issuer is not None and settings is not None:
            self._issuer.reconfigure(settings)

    async def stop(self) -> None:
        """Begin no other order, and break off the one that is in progress."""
        await self._tasks.stop()
        await self._stack.aclose()
