"""The provider and the bearer check of a configuration, within an application of a web framework.

`gateway.aiohttp` and `gateway.asgi` make a `Request` of what their framework has, and send what
comes back. What a token is and may do is decided by the stages of the request path
(`gateway.proxy.stages`), and the provider responds by its endpoints, as in a gateway process.

States: new -> started -> stopped -> started ...; `start` and `stop` are counted, so that several
parts of an application may each start the same one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypedDict, Unpack
from urllib.parse import urlsplit

import yaml
from prometheus_client import CollectorRegistry

from gateway.addresses import LOCAL_PEER, UNKNOWN_PEER, Networks, plain_address
from gateway.app.build.endpoints import build_endpoints, build_rate_limits
from gateway.app.build.provider import failed_client_limiter, provider_policy
from gateway.app.declared_clients import DeclaredClients
from gateway.app.invalidation import Invalidation
from gateway.app.periodic import KEYS_S, USAGE_S, PerGatewayTasks, PeriodicTasks
from gateway.app.provider import Provider, open_provider
from gateway.config import Config, load_config, parse_config
from gateway.downstream.body_reader import MAX_BODY_BYTES
from gateway.downstream.request import NO_HEAD, NO_LINE, Peer, Request
from gateway.downstream.stream import DiscardingStream
from gateway.http.errors import NoRouteError, ProblemError, RequestTimeoutError
from gateway.http.fields import RawHeaders
from gateway.http.request_head import RequestLine, malformed, read_request_head
from gateway.http.target import RequestTarget
from gateway.metrics import Metrics, RouteMetrics
from gateway.metrics.registry import OwnFamilies
from gateway.oauth.access import Access, read_audience
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.declared_clients import ClientReconciler
from gateway.oauth.endpoints import EndpointResponse, ProviderEndpoints, error_response
from gateway.oauth.endpoints.discovery import resource_metadata_path, resource_metadata_paths
from gateway.oauth.errors import BearerError, OAuthError, TooLargeError
from gateway.oauth.models import FAMILY_CLAIM, AccessToken, Change, StoreUnavailableError
from gateway.oauth.policy import ProviderPolicy
from gateway.proxy.context import RequestContext
from gateway.proxy.decisions import NoUpstream
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.pipeline import complete_challenge, render_rejection
from gateway.proxy.router import Route
from gateway.proxy.stages import TokenStages, make_endpoint_request, understand

MAX_PEERS = 1024
"""Peers whose forwarding fields and trust are kept."""
ConfigSource = Config | Mapping[str, Any] | str | os.PathLike[str]
"""A configuration, its keys and values, or the path of its file."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller of a request, as its token says."""

    client_id: str
    client_name: str
    scopes: frozenset[str]
    audience: frozenset[str]
    """Resources that the token is for (RFC 8707); empty for all."""
    subject: str
    """User on whose behalf the client calls (`sub`, RFC 9068 section 2.2); else the client."""
    claims: Mapping[str, Any] = field(repr=False, hash=False)
    """Other claims of the token (RFC 7519 section 4), with `iat` and `exp`."""

    @classmethod
    def of(cls, token: AccessToken) -> Identity:
        """Return the identity in a token that was verified."""
        claims = {name: value for name, value in token.claims.items() if name != FAMILY_CLAIM}
        claims |= {"iat": int(token.issued_at), "exp": int(token.expires_at)}
        return cls(
            token.client_id,
            token.client_name,
            frozenset(token.scopes),
            read_audience(token),
            str(claims.get("sub", token.client_id)),
            MappingProxyType(claims),
        )


class Requirements(TypedDict, total=False):
    """Requirements for the token of a request, as `routes[]` of the configuration has them."""

    scopes: Iterable[str]
    """Scopes that it must have, all of them; a text is split at spaces."""
    clients: Iterable[str]
    """Clients that may call; empty for all."""
    audience: Iterable[str]
    """Names that its `aud` claim must contain one of, or `resource`; empty for any."""
    resource: str
    """URL of the application, for `aud` and DPoP proofs; the default is the issuer's origin."""
    optional: bool
    """Whether a request without a token passes, as an anonymous one."""


@dataclass(frozen=True, slots=True)
class BearerRules:
    """Requirements for the token of a request, as a value."""

    scopes: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()
    audience: frozenset[str] = frozenset()
    resource: str = ""
    optional: bool = False

    @classmethod
    def of(cls, **given: Unpack[Requirements]) -> BearerRules:
        """Return what is given, the rest by default. Raises `TypeError` for another name."""
        names = {
            name: frozenset(value.split() if isinstance(value, str) else value)
            for name, value in given.items()
            if name in {"scopes", "clients", "audience"} and isinstance(value, Iterable)
        }
        return cls(**{**given, **names})  # type: ignore[arg-type]

    def requiring(self, scopes: frozenset[str]) -> BearerRules:
        """Return the same rules with these scopes required, too: then not without a token."""
        if not scopes:
            return self
        return replace(self, scopes=self.scopes | scopes, optional=False)


class RejectedError(Exception):
    """A request is rejected, by the same response as on the gateway's routes (RFC 6750 section 3,
    RFC 9457)."""

    def __init__(self, response: DirectResponse) -> None:
        super().__init__(response.detail)
        self.response = response


class EmbeddedGateway:
    """The provider and the bearer check of one configuration."""

    def __init__(
        self, config: ConfigSource, *, mount: str = "", registry: CollectorRegistry | None = None
    ) -> None:
        """`mount` begins the paths of the provider, such as `/oauth`. `registry` receives the
        metrics for as long as it is started. Raises `ConfigError`."""
        if mount and (not mount.startswith("/") or mount.endswith("/")):
            raise ValueError(f"mount is {mount!r}; expected a path such as /oauth")
        self.config = _mounted(_read_config(config), mount)
        self.mount = mount
        self.policy: ProviderPolicy = provider_policy(self.config)
        self.metrics = Metrics()
        self._registry = registry
        header = self.config.provider.client_certificate_header or ""
        self._certificate_header = header.lower().encode()
        self._trusted_proxies = Networks.parse(self.config.trusted_proxies)
        self._peer = lru_cache(MAX_PEERS)(self._make_peer)
        self._users = 0
        self._stack = AsyncExitStack()
        self._provider: Provider | None = None
        self._endpoints: ProviderEndpoints | None = None
        self._tokens: TokenStages | None = None
        self._routes: dict[BearerRules, Route] = {}

    async def start(self) -> None:
        """Open the store and follow its revocations, unless that was done already. Raises
        `StoreError`, and closes what it had opened."""
        if not self._users:
            async with AsyncExitStack() as stack:
                await self._open(stack)
                self._stack = stack.pop_all()
        self._users += 1

    async def stop(self) -> None:
        """Close everything, where every `start` has had its `stop`."""
        self._users -= 1
        if not self._users:
            self._provider = self._endpoints = self._tokens = None
            self._routes = {}
            await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _open(self, stack: AsyncExitStack) -> None:
        config, metrics = self.config, self.metrics
        if self._registry is not None:
            families = OwnFamilies(metrics.registry)
            self._registry.register(families)
            stack.callback(self._registry.unregister, families)
        provider = await open_provider(
            config, metrics, failed_client_limiter(config), stack, on_change=self._forget
        )
        rates = build_rate_limits(config, metrics, stack)
        endpoints = build_endpoints(config, provider, provider.rules.policy, metrics, rates)
        invalidation = Invalidation(provider.store, provider.validator, metrics)
        await invalidation.start()
        stack.push_async_callback(invalidation.stop)
        stack.push_async_callback(_flush_usage, provider)
        periodic = PeriodicTasks()
        periodic.repeat(provider.remote_keys.refresh, KEYS_S)
        periodic.repeat(provider.flush_usage, USAGE_S)
        stack.push_async_callback(periodic.stop)
        tasks = PerGatewayTasks(
            store=provider.store,
            metrics=metrics,
            client_expiry_warning_s=config.provider.client_expiry_warning,
            expired_client_retention_s=config.provider.expired_client_retention,
        )
        tasks.start()
        stack.push_async_callback(tasks.stop)
        stack.push_async_callback((hasher := SecretHasher()).close)
        declared = DeclaredClients(ClientReconciler(provider.server, hasher), metrics)
        declared.declare(config)
        declared.start()
        stack.push_async_callback(declared.stop)
        self._provider, self._endpoints = provider, endpoints
        self._tokens = TokenStages(provider.validator, metrics.data_plane.auth_decisions)

    def _forget(self, change: Change) -> None:
        if self._provider is not None:
            self._provider.validator.forget(change)

    def on_stop(self, close: Callable[[], Awaitable[object]]) -> None:
        """Call `close` when it is stopped, before anything else is closed."""
        self._stack.push_async_callback(close)

    @property
    def provider(self) -> Provider:
        """The parts of the provider. Raises `RuntimeError` where it was not started."""
        if self._provider is None:
            raise RuntimeError(
                "the embedded gateway is not started: add cleanup_ctx(gateway) to app.cleanup_ctx "
                "(aiohttp), lifespan=lifespan(gateway) (Starlette, FastAPI), or `async with` it"
            )
        return self._provider

    def read_request(
        self,
        method: str,
        target: bytes,
        fields: RawHeaders,
        *,
        address: str | None,
        scheme: str,
        certificate: bytes | None = None,
        is_http_11: bool = True,
    ) -> Request:
        """Make the gateway's value of a request, whose `error` says why it is malformed, if so.

        `address` is the peer's: None where it is unknown, empty for a Unix socket. The target is
        taken as it is: what its path means is the application's affair.
        """
        peer = self._peer(address, scheme, certificate)
        line = NO_LINE
        try:
            block = b"\r\n".join([b"%b: %b" % given for given in fields])
            if block.count(b"\n") >= max(len(fields), 1):
                raise malformed()  # a line end in a value
            path, mark, query = target.decode("latin-1").partition("?")
            line = RequestLine(method, RequestTarget(path, mark + query), not is_http_11, b"")
            head = read_request_head(block, max_fields=len(fields))
            return Request(line, head, peer)
        except ProblemError as error:
            return Request(line, NO_HEAD, peer, error)

    async def check(self, request: Request, rules: BearerRules) -> RequestContext:
        """Check the token of a request: authenticate and authorize it as the request path does.

        Returns the context, with the token; None there is an anonymous request where that is
        allowed. Raises `RejectedError` (400, 401, 403; 503 where the store does not respond).
        """
        stages, route = self._tokens, self._routes.get(rules)
        if route is None or stages is None:
            route, stages = self._add_route(rules)
        context = RequestContext(DiscardingStream(), request, 0.0)
        context.route = route
        try:
            understand(context)
            for stage in (stages.authenticate, stages.authorize):
                waiting = stage(context)
                if waiting is not None:
                    await waiting
        except (ProblemError, OAuthError) as error:
            raise rejected(error, context) from None
        finally:
            # It may serve other connections, and outlives this one: no credentials stay there.
            request.peer.bearer = None
        return context

    def _make_peer(self, address: str | None, scheme: str, certificate: bytes | None) -> Peer:
        return Peer(
            UNKNOWN_PEER if address is None else plain_address(address) or LOCAL_PEER,
            scheme=scheme,
            certificate=certificate,
            trusted_proxies=self._trusted_proxies,
            certificate_header=self._certificate_header,
        )

    def _add_route(self, rules: BearerRules) -> tuple[Route, TokenStages]:
        provider = self.provider
        assert self._tokens is not None
        policy, resource = self.policy, rules.resource.rstrip("/") or self.policy.origin
        parts = urlsplit(resource)
        origin = f"{parts.scheme}://{parts.netloc}"
        metadata = resource_metadata_path(parts.path or "/")
        is_served = origin == policy.origin and metadata in resource_metadata_paths(policy)
        access = Access(
            rules.scopes,
            rules.clients,
            audience=rules.audience,
            resources=frozenset({resource}),
            origins=(origin,),
            resource_metadata=policy.url(metadata) if is_served else "",
            proofs=provider.proofs,
        )
        route = self._routes[rules] = Route(
            name="embedded",
            path="/",
            upstream=NoUpstream(),
            metrics=RouteMetrics(),
            auth="optional" if rules.optional else "required",
            access=access,
        )
        return route, self._tokens

    async def respond(self, request: Request, body: AsyncIterable[bytes]) -> EndpointResponse:
        """Respond to a request for a path of the provider; `body` gives the pieces of its body.
        Raises `RejectedError` where it is malformed, takes too long, or is for another path."""
        assert self.provider
        assert self._endpoints is not None
        context = RequestContext(DiscardingStream(), request, 0.0)
        try:
            understand(context)
            if not self._endpoints.known_paths.serves(request.path):
                raise NoRouteError("provider_path", "This is no path of the provider.")
            whole = await _read_body(body, self.config.listen.timeouts.body)
        except ProblemError as error:
            raise rejected(error, context) from None
        if len(whole) > MAX_BODY_BYTES:
            return error_response(TooLargeError(reason="body_too_large"))
        return await self._endpoints.respond(make_endpoint_request(request, whole))


def rejected(error: ProblemError | OAuthError, context: RequestContext) -> RejectedError:
    """Return the rejection of a request for an error."""
    if isinstance(error, BearerError):
        complete_challenge(error, context)
    return RejectedError(render_rejection(error, context.request.request_id.decode("ascii")))


async def _read_body(pieces: AsyncIterable[bytes], timeout_s: float) -> bytes:
    """Read a body as a whole, or the beginning of one that is larger than `MAX_BODY_BYTES`."""
    body = b""
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in pieces:
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    break
    except TimeoutError:
        raise RequestTimeoutError("client_body_timeout", "The body takes too long.") from None
    return body


def _read_config(source: ConfigSource) -> Config:
    if isinstance(source, Config):
        return source
    if isinstance(source, Mapping):
        # Values in code are no templates: `${` stands for itself.
        text = yaml.safe_dump(dict(source), sort_keys=False).replace("${", "$${")
        return parse_config(text, file="the configuration")
    return load_config(Path(source))


def _mounted(config: Config, mount: str) -> Config:
    """The configuration with its provider's paths below `mount`."""
    provider = config.provider
    if not mount:
        return config
    paths = {
        name: mount + getattr(provider, name)
        for name in type(provider).model_fields
        if name.endswith("_path")
    }
    return config.model_copy(update={"provider": provider.model_copy(update=paths)})


async def _flush_usage(provider: Provider) -> None:
    with suppress(StoreUnavailableError):  # which the store has logged
        await provider.flush_usage()
