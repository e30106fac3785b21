"""The data plane of one configuration: built whole, before any of it serves.

A reload makes a new generation, which serves the next requests. Requests in flight hold
on to the one that they began with, to its routes, upstreams and deadlines, until they end.
Upstreams that are the same in both generations are one object, with its connections and all
that it has learned about its targets.
"""

from __future__ import annotations

import contextlib
import gc
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.access_log import AccessLog
from gateway.app.build.decisions import configure_decisions, decision_pipeline
from gateway.app.build.derive import rate_limit
from gateway.app.build.endpoints import build_endpoints
from gateway.app.build.listeners import (
    build_router,
    client_limits,
    http2_settings,
    trusted_proxies,
)
from gateway.app.build.provider import ProviderRules, provider_rules
from gateway.app.build.routes import credential_headers
from gateway.app.build.tls import UpstreamContexts, certificate_expiries, listen_tls
from gateway.app.build.upstreams import build_upstream
from gateway.app.certificates import ServedCertificates
from gateway.app.process import collect_what_was_kept, is_own_process, keep_what_is_made
from gateway.app.provider import Provider
from gateway.app.reloading.watching import read_digest
from gateway.config import Config, config_hash, named_files
from gateway.downstream.connections import ConnectionManager
from gateway.downstream.server_names import ServerNames
from gateway.http.fields import never_keep
from gateway.metrics import Metrics
from gateway.proxy.http_redirect import HttpChallenges, build_http_redirect
from gateway.proxy.pipeline import Pipeline, build_pipeline
from gateway.proxy.request_log import RequestLog
from gateway.proxy.tracing import Tracing
from gateway.rate_limit import RateLimits, RateRules
from gateway.upstream.upstream import Upstream

SWITCH_S = 0.0005


@dataclass(frozen=True, slots=True)
class SharedState:
    """State that lives as long as the process, across configurations."""

    metrics: Metrics
    provider: Provider
    access_log: AccessLog
    log: RequestLog
    rates: RateLimits
    tracing: Tracing | None
    certificates: ServedCertificates | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One configuration, ready to serve."""

    config: Config
    hash: str
    rules: ProviderRules
    tls: ssl.SSLContext | None
    contexts: UpstreamContexts
    """Towards upstreams, for the next generation to take over."""
    upstreams: dict[str, Upstream]
    origins: dict[str, object]
    """What each upstream was made from: settings, and contents of the files that they name."""
    pipeline: Pipeline
    decisions: Pipeline | None
    redirect: Pipeline | None
    """Of plain HTTP, where that is redirected."""
    names: ServerNames | None
    """Certificates by ACME."""
    expiries: dict[str, float]
    """When its certificates end, Unix seconds, by what they are for."""

    def close(self, *, keeps_decisions: bool = False) -> None:
        """Let go of what serves requests: another generation takes them from now on, but not
        authorization checks, where it `keeps_decisions`."""
        for pipeline in (self.pipeline, self.redirect, None if keeps_decisions else self.decisions):
            if pipeline is not None:
                pipeline.close()

    def configure(
        self,
        clients: ConnectionManager,
        decision_clients: ConnectionManager | None,
        redirect_clients: ConnectionManager | None = None,
    ) -> None:
        """Serve the next requests and authorization checks by this generation."""
        header = self.config.provider.client_certificate_header or ""
        clients.reconfigure(
            self.pipeline.handle,
            limits=client_limits(self.config),
            trusted_proxies=trusted_proxies(self.config),
            certificate_header=header.lower().encode(),
            http2=http2_settings(self.config),
        )
        if decision_clients is not None and self.decisions is not None:
            configure_decisions(self.config, self.decisions, decision_clients)
        if redirect_clients is not None and self.redirect is not None:
            redirect_clients.reconfigure(
                self.redirect.handle,
                limits=client_limits(self.config),
                trusted_proxies=trusted_proxies(self.config),
                certificate_header=b"",
            )


def build_generation(
    config: Config, shared: SharedState, before: Generation | None = None
) -> Generation:
    """Build what serves a configuration; what is the same as `before` is taken from there.

    Takes its time, with files to read and certificates to parse: not for the thread of an event
    loop. Raises `OSError` for certificates that can't be used.
    """
    metrics, provider = shared.metrics, shared.provider
    tls = listen_tls(config, http2=http2_settings(config) is not None)
    certificates, names = shared.certificates, None
    if tls is not None and certificates is not None:
        names = certificates.name_contexts(config, tls)
    origins = {name: _origin(config, name) for name in config.upstreams}
    contexts = UpstreamContexts(None if before is None else before.contexts)
    upstreams: dict[str, Upstream] = {}
    for name, settings in config.upstreams.items():
        try:
            context, http1_context = contexts.of(settings), contexts.http1_of(settings)
        except OSError as error:
            raise OSError(f"upstreams.{name}.tls: {error}") from error
        if before is not None and before.origins.get(name) == origins[name]:
            upstreams[name] = before.upstreams[name]
        else:
            upstreams[name] = build_upstream(
                name,
                settings,
                metrics,
                workers=config.workers,
                tls=context,
                http1_tls=http1_context,
            )
    rules = provider_rules(config)
    endpoints = build_endpoints(config, provider, rules.policy, metrics, shared.rates)
    for header in credential_headers(config):
        never_keep(header)
    router = build_router(config, upstreams, metrics, provider.proofs)
    pipeline = build_pipeline(
        router=router,
        validator=provider.validator,
        endpoints=endpoints,
        log=shared.log,
        body_timeout_s=config.listen.timeouts.body,
        rates=shared.rates,
        rate_rules=RateRules(rate_limit(config.rate_limit)),
        secrets=provider.secrets,
    )
    decisions = decision_pipeline(
        config, metrics, access_log=shared.access_log, router=router, validator=provider.validator,
        rates=shared.rates, tracing=shared.tracing, secrets=provider.secrets,
    )  # fmt: skip
    redirect = None
    if (plain := config.listen.http_redirect) is not None:
        challenges = HttpChallenges() if certificates is None else certificates.http_challenges
        redirect = build_http_redirect(shared.log, challenges, https_port=plain.https_port)
    return Generation(
        config,
        config_hash(config),
        rules,
        tls,
        contexts,
        upstreams,
        origins,
        pipeline,
        decisions,
        redirect,
        names,
        certificate_expiries(config),
    )


@contextlib.contextmanager
def requests_first() -> Iterator[None]:
    """Keep the threads that make a large configuration from holding up the event loop.

    They hand over the interpreter ten times as often as usual: the loop waits for it at every turn.
    And the garbage collector, for which every thread waits, does not look through all that is made,
    several times while it is made, and once more afterwards.
    """
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    is_collecting = gc.isenabled()
    if is_collecting:
        collect_what_was_kept()
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)
        if is_collecting and is_own_process():
            keep_what_is_made()
        elif is_collecting:  # in a process that is not the gateway's own
            # Together they make all that is new old, in no time: what is old is looked at rarely.
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def _origin(config: Config, name: str) -> object:
    settings = config.upstreams[name]
    return settings, [(path, read_digest(path)) for _, path in named_files(settings)]
