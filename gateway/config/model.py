"""The configuration as frozen values. Key by key this is the schema of the YAML file.

Only the shape of each value is judged here; what they must have to do with each other
is in `rules.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.authz import Authz
from gateway.config.provider import IntrospectionServer, JwtIssuer, Provider
from gateway.config.route_traffic import Maintenance
from gateway.config.routes import RateLimit, Route
from gateway.config.scalars import (
    Bool,
    File,
    FileMode,
    Name,
    Network,
    Path,
    Port,
    Proxy,
    Secret,
    Section,
    StoreUrl,
)
from gateway.config.tracing import Tracing
from gateway.config.upstreams import Upstream
from gateway.units import Duration, Int, PositiveDuration


class ListenTls(Section):
    """TLS of the data plane."""

    cert: File = Field(description="File with the certificate chain, PEM.")
    key: File = Field(description="File with the private key, PEM.")
    min_version: Literal["1.2", "1.3"] = Field("1.2", description="The oldest TLS that is spoken.")
    ciphers: str = Field(
        "", description="Ciphers of TLS 1.2, as OpenSSL writes a list of them; empty: its own."
    )
    client_ca: File | None = Field(
        None, description="File with the CAs of client certificates, PEM; asks for one if given."
    )
    client_auth: Literal["required", "optional"] = Field(
        "required", description="Whether a client must have a certificate, if `client_ca` is given."
    )


class ProxyProtocol(Section):
    """Load balancers that say by the PROXY protocol who the client is (versions 1 and 2)."""

    trusted_proxies: list[Network] = Field(
        min_length=1,
        description="Networks of load balancers that must begin each connection with a header.",
    )
    others: Literal["refuse", "plain"] = Field(
        "refuse", description="Whether others may connect, without a header, or not at all."
    )


class ListenUnix(Section):
    """The data plane on a Unix socket, too: plain HTTP."""

    path: Path = Field(
        description="Where the socket is; made at the start, an abandoned one being replaced, and "
        "removed at the end."
    )
    mode: FileMode = Field(
        "0660", description="Permissions of the socket, octal, in quotes: who may connect."
    )


class ListenTimeouts(Section):
    """How long clients may take."""

    head: PositiveDuration = Field(
        10.0, description="From the first byte of a request head to its last, else 408."
    )
    body: PositiveDuration = Field(
        60.0, description="The longest pause within a body, in either direction, else 408."
    )
    keepalive: PositiveDuration = Field(
        75.0, description="How long a connection may be idle between requests."
    )


class ListenLimits(Section):
    """How large request heads may be, and how slow bodies."""

    head_bytes: Int = Field(32768, ge=1024, description="Bytes of a request head, else 431.")
    headers: Int = Field(100, ge=1, description="Fields of a request head, else 431.")
    min_body_rate: Int = Field(
        240,
        ge=0,
        description="Bytes a second of a request body, on the average of `timeouts.body`, else "
        "408. Time that the upstream takes is not counted. 0 is no limit.",
    )


class Listen(Section):
    """The data plane."""

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104
    port: Port = Field(8080, description="Port to listen on; 0 takes any free one.")
    unix: ListenUnix | None = Field(None, description="Listen on a Unix socket, too.")
    tls: ListenTls | None = Field(None, description="Serve HTTPS; without it, plain HTTP.")
    proxy_protocol: ProxyProtocol | None = Field(
        None, description="Take the client's address from load balancers by the PROXY protocol."
    )
    max_connections: Int = Field(
        10000, ge=1, description="Open client connections; more are answered 503 and closed."
    )
    max_connections_per_source: Int = Field(
        0,
        ge=0,
        description="Of one address, or one IPv6 /64, in each worker; more are answered 503 and "
        "closed. 0 is no limit; `trusted_proxies` have none.",
    )
    timeouts: ListenTimeouts = Field(
        default_factory=ListenTimeouts, description="Deadlines for clients."
    )
    limits: ListenLimits = Field(
        default_factory=ListenLimits, description="What a request may be like."
    )


class Admin(Section):
    """The admin listener."""

    host: str = Field("127.0.0.1", description="Address to listen on; not for the public.")
    port: Port = Field(9090, description="Port to listen on; 0 takes any free one.")
    token: Secret | None = Field(
        None,
        description="A bearer token of the admin API that may do everything, beside those of "
        "`gateway admin token create`; without any, the API is off.",
    )
    session_idle: PositiveDuration = Field(
        1800.0, description="A session at the console ends so long after its last request."
    )
    session_ttl: PositiveDuration = Field(
        43200.0, description="The longest that a session at the console lasts."
    )
    audit_retention: PositiveDuration = Field(
        90 * 86400.0, description="How long entries of the audit log are kept."
    )


class Cache(Section):
    """The token cache of a process."""

    max_entries: Int = Field(100000, ge=1, description="Tokens kept in memory.")
    ttl: PositiveDuration = Field(
        60.0, description="How long a valid token is believed without asking the store."
    )
    negative_ttl: PositiveDuration = Field(
        5.0, description="How long an unknown token is refused without asking the store."
    )
    stale_if_store_down: Duration = Field(
        0.0,
        description="How long after `cache.ttl` a cached token is still believed while the store "
        "does not respond; 0 is not at all.",
    )
    max_store_reads: Int = Field(
        64,
        ge=1,
        description="Tokens looked up in the store at once; others wait shortly, then 503.",
    )


class AccessLog(Section):
    """The access log."""

    path: str = Field(
        "-", min_length=1, description="File to append lines to, `-` for stdout, or `off`."
    )
    format: Literal["json", "apache_combined"] = Field("json", description="What a line is like.")
    sample: float = Field(
        1.0,
        ge=0,
        le=1,
        strict=False,
        description="Share of the requests that are logged; those that failed always are.",
    )


class Shutdown(Section):
    """What happens on SIGTERM."""

    delay: Duration = Field(
        5.0, description="Keep serving so long with readiness down, so that nobody sends more."
    )
    grace: Duration = Field(25.0, description="Then wait so long for requests in flight to finish.")


class Reload(Section):
    """Loading the configuration anew while the gateway runs."""

    watch: Bool = Field(
        True, description="Load it when this file, or one that it names, has changed."
    )
    interval: PositiveDuration = Field(1.0, description="How often the files are looked at.")
    debounce: Duration = Field(
        0.5, description="How long they must have stood still before they are loaded."
    )


class Config(Section):
    """The whole file."""

    listen: Listen = Field(default_factory=Listen, description="The data plane.")
    admin: Admin = Field(default_factory=Admin, description="Metrics, health, admin API.")
    authz: Authz | None = Field(
        None, description="Decision mode, for other proxies; off if not given."
    )
    workers: Int = Field(1, ge=1, le=256, description="Processes sharing the port.")
    store: StoreUrl = Field(
        "sqlite:///./gateway.db",
        repr=False,  # it may hold a password
        description="Where clients and tokens live: a `sqlite:` or `redis:` URL.",
    )
    ready_without_store: Bool = Field(
        False, description="Whether `/readyz` says yes while the store does not respond."
    )
    provider: Provider = Field(default_factory=Provider, description="The OAuth 2.0 provider.")
    jwt_issuers: list[JwtIssuer] = Field(
        [], description="Issuers whose JWTs are accepted beside our own tokens."
    )
    introspection_servers: list[IntrospectionServer] = Field(
        [], description="Issuers that are asked about tokens that are not ours, in this order."
    )
    rate_limit: RateLimit | None = Field(
        None, description="How many requests each client may make to all routes together, else 429."
    )
    cache: Cache = Field(default_factory=Cache, description="The token cache.")
    access_log: AccessLog = Field(default_factory=AccessLog, description="The access log.")
    tracing: Tracing | None = Field(None, description="OpenTelemetry spans; off if not given.")
    shutdown: Shutdown = Field(default_factory=Shutdown, description="What happens on SIGTERM.")
    reload: Reload = Field(
        default_factory=Reload, description="Loading this file anew while the gateway runs."
    )
    trusted_proxies: list[Proxy] = Field(
        [],
        description="Networks whose X-Forwarded-* and Forwarded are believed; `unix` is everybody "
        "on a Unix socket.",
    )
    upstreams: dict[Name, Upstream] = Field({}, description="Groups of targets, by name.")
    maintenance: Maintenance | None = Field(
        None, description="All routes are closed for now, 503; the provider is not."
    )
    routes: list[Route] = Field([], description="Where requests go; see the precedence rule.")
