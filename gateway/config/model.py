"""The configuration as frozen values. Key by key this is the schema of the YAML file.

Only the shape of each value is checked here; how they must fit together
is in `rules.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, PrivateAttr

from gateway.config.acme import Acme
from gateway.config.authz import Authz
from gateway.config.clients import ClientConfig
from gateway.config.identity_assertions import IdentityAssertionConfig
from gateway.config.issuers import IntrospectionServerConfig, JwtIssuerConfig
from gateway.config.problems import Path as Place
from gateway.config.provider import ProviderConfig
from gateway.config.route_traffic import Maintenance
from gateway.config.routes import ClientsRateLimit, RouteConfig
from gateway.config.scalars import (
    Bool,
    File,
    FileMode,
    FileName,
    HostName,
    ListenHost,
    ListenPort,
    Name,
    Network,
    Path,
    Port,
    Proxy,
    Secret,
    Section,
    StoreUrl,
    Text,
)
from gateway.config.tracing import TracingConfig
from gateway.config.upstreams import UpstreamConfig
from gateway.config.workloads import WorkloadConfig
from gateway.units import Duration, Int, PositiveDuration


class ListenTls(Section):
    """TLS of the data plane."""

    cert: File | None = Field(
        None,
        description=(
            "PEM file with the server's certificate chain; with `acme`, optional: for other names, "
            "and until there is a certificate."
        ),
    )
    key: File | None = Field(
        None, description="PEM file with the server's private key; goes with `cert`."
    )
    acme: Acme | None = Field(None, description="Get certificates by ACME (RFC 8555).")
    min_version: Literal["1.2", "1.3"] = Field("1.2", description="Lowest TLS version to accept.")
    ciphers: str = Field(
        "", description="Cipher list of TLS 1.2 in OpenSSL's format; empty for OpenSSL's default."
    )
    client_ca: File | None = Field(
        None,
        description=(
            "PEM file with the CAs of client certificates; if given, clients are asked for "
            "one (mTLS)."
        ),
    )
    client_auth: Literal["required", "optional"] = Field(
        "required", description="Whether a client must have a certificate, if `client_ca` is given."
    )


class ProxyProtocol(Section):
    """Load balancers that say by the PROXY protocol who the client is (versions 1 and 2)."""

    trusted_proxies: list[Network] = Field(
        min_length=1,
        description=(
            "Networks of load balancers whose connections must begin with a PROXY protocol header."
        ),
    )
    others: Literal["refuse", "plain"] = Field(
        "refuse",
        description=(
            "Connections from other networks: `refuse` them, or accept them without a header "
            "(`plain`)."
        ),
    )


class HttpRedirectConfig(Section):
    """Plain HTTP on a port of its own, for redirects to https and ACME challenges."""

    host: ListenHost = Field("0.0.0.0", description="IP address to listen on.")  # noqa: S104
    port: Port = Field(80, description="Port to listen on; 0 for any free port.")
    https_port: Port = Field(
        443, ge=1, description="Port of https as clients reach it, to redirect to."
    )


class ListenUnix(Section):
    """The data plane on a Unix socket, too: plain HTTP."""

    path: Path = Field(
        description=(
            "Path of a Unix socket to listen on as well, for plain HTTP. Created at start and "
            "removed at stop; a stale one is replaced."
        )
    )
    mode: FileMode = Field(
        "0660", description="Permissions of the socket (octal, in quotes): who may connect."
    )


class ListenTimeouts(Section):
    """How long clients may take."""

    head: PositiveDuration = Field(
        10.0,
        description=(
            "Limit on the time from the first byte of a request head to its last, and on a "
            "TLS handshake; else 408."
        ),
    )
    body: PositiveDuration = Field(
        60.0, description="Longest pause within a body, in either direction; else 408."
    )
    keepalive: PositiveDuration = Field(
        75.0, description="How long a client connection may be idle between requests."
    )
    half_close: Duration = Field(
        5.0,
        description=(
            "How long a client that has closed its sending side after a request (HTTP/1 without "
            "TLS) is kept while there is nothing to send to it: it may also have left. 0 for not "
            "at all: the request is given up."
        ),
    )


class ListenLimits(Section):
    """How large request heads may be, and how slow bodies."""

    head_bytes: Int = Field(
        32768, ge=1024, description="Limit on the bytes of a request head; else 431."
    )
    headers: Int = Field(
        100, ge=1, description="Limit on the header fields of a request; else 431."
    )
    min_body_rate: Int = Field(
        240,
        ge=0,
        description=(
            "Slowest acceptable request body in bytes per second, averaged over "
            "`timeouts.body`; else 408. Time that the upstream takes is not counted. 0 for no "
            "limit."
        ),
    )


class ListenHttp2(Section):
    """HTTP/2 of clients; needs the extra `http2`."""

    enabled: Literal["auto"] | bool = Field(
        "auto",
        description=(
            "Accept HTTP/2: by ALPN with TLS, by prior knowledge without. `auto`: where the extra "
            "`http2` is installed."
        ),
    )
    max_concurrent_streams: Int = Field(
        100, ge=1, description="Limit on requests at once on a connection; others are refused."
    )
    initial_window: Int = Field(
        65536,
        ge=16384,
        le=2**31 - 1,
        description="Bytes of a request body that a client may send ahead, for each stream.",
    )
    connection_window: Int = Field(
        1048576,
        ge=65535,
        le=2**31 - 1,
        description="Bytes of request bodies that a client may send ahead on a connection.",
    )
    max_age: Duration = Field(
        3600.0,
        description=(
            "When a connection is asked to close (GOAWAY), 10 % more or less, so that long-lived "
            "ones spread over replicas; requests in flight finish. 0 for never."
        ),
    )
    max_resets: Int = Field(
        1000,
        ge=1,
        description=(
            "Limit on streams that a connection resets, or has reset by its errors, within 30 s; "
            "ten times as many for `trusted_proxies`. One more ends it."
        ),
    )


class Listen(Section):
    """The data plane."""

    host: ListenHost = Field("0.0.0.0", description="IP address to listen on.")  # noqa: S104
    port: ListenPort = Field(
        8080,
        description="Port to listen on; 0 for any free port, `off` for none: on `unix` only.",
    )
    unix: ListenUnix | None = Field(None, description="Listen on a Unix socket, too.")
    tls: ListenTls | None = Field(None, description="Serve HTTPS; without it, plain HTTP.")
    http_redirect: HttpRedirectConfig | None = Field(
        None,
        description=(
            "Listen for plain HTTP, too: serve ACME challenges (http-01), and redirect all other "
            "requests to https (308)."
        ),
    )
    proxy_protocol: ProxyProtocol | None = Field(
        None, description="Take the client's address from load balancers by the PROXY protocol."
    )
    http2: ListenHttp2 = Field(
        default_factory=ListenHttp2, description="HTTP/2, beside HTTP/1.1 on the same port."
    )
    max_connections: Int = Field(
        10000,
        ge=1,
        description=(
            "Limit on open client connections, over all workers; further ones get 503 and are "
            "closed."
        ),
    )
    max_connections_per_source: Int = Field(
        0,
        ge=0,
        description=(
            "Limit on open connections from one address, or one IPv6 /64, in each worker; "
            "further ones get 503. 0 for no limit; `trusted_proxies` have none."
        ),
    )
    timeouts: ListenTimeouts = Field(
        default_factory=ListenTimeouts, description="Deadlines for clients."
    )
    limits: ListenLimits = Field(
        default_factory=ListenLimits, description="What a request may be like."
    )


class Admin(Section):
    """The admin listener."""

    host: ListenHost = Field(
        "127.0.0.1", description="IP address to listen on; must not be reachable by the public."
    )
    port: Port = Field(9090, description="Port to listen on; 0 for any free port.")
    hosts: list[HostName] = Field(
        [],
        description=(
            "Names that requests may have in Host, besides `localhost`, `admin.host` and "
            "addresses. Others are 421 where the connection comes over loopback, since a web page "
            "can have its name resolve to that; elsewhere only if there are names here."
        ),
    )
    token: Secret | None = Field(
        None,
        description=(
            "Bearer token with all rights on the admin API, beside those of `gateway admin "
            "token create`. Without any token, the API is off."
        ),
    )
    session_idle: PositiveDuration = Field(
        1800.0, description="A console session expires this long after its last request."
    )
    session_ttl: PositiveDuration = Field(
        43200.0, description="Longest lifetime of a console session."
    )
    audit_retention: PositiveDuration = Field(
        90 * 86400.0, description="How long entries of the audit log are kept."
    )


class Cache(Section):
    """The token cache of a process."""

    max_entries: Int = Field(100000, ge=1, description="Limit on cached tokens.")
    ttl: PositiveDuration = Field(
        60.0, description="How long a valid token is cached before it is read from the store again."
    )
    negative_ttl: PositiveDuration = Field(
        5.0, description="How long an unknown token is rejected without a read of the store."
    )
    stale_if_store_down: Duration = Field(
        0.0,
        description=(
            "How long after `cache.ttl` a cached token is still accepted while the store is "
            "unavailable; 0 for not at all."
        ),
    )
    max_store_reads: Int = Field(
        64,
        ge=1,
        description=(
            "Limit on concurrent reads of tokens from the store; further ones wait briefly, "
            "then get 503."
        ),
    )


class AccessLogConfig(Section):
    """The access log."""

    path: FileName = Field("-", description="File to append lines to, `-` for stdout, or `off`.")
    format: Literal["json", "apache_combined"] = Field(
        "json", description="Format of the access log."
    )
    sample: float = Field(
        1.0,
        ge=0,
        le=1,
        strict=False,
        description="Share of the requests to log; failed requests are always logged.",
    )


class LogConfig(Section):
    """The log of the gateway itself."""

    format: Literal["text", "json"] = Field(
        "text",
        description=(
            "Format of the log on standard error: lines of text, or one JSON object for each "
            "message, with its traceback."
        ),
    )


class Shutdown(Section):
    """The orderly shutdown on SIGTERM."""

    delay: Duration = Field(
        5.0,
        description=(
            "How long to keep serving with `/readyz` at 503 after SIGTERM, so that load "
            "balancers stop sending."
        ),
    )
    grace: Duration = Field(
        25.0, description="How long to wait after that for requests in flight to finish."
    )


class ReloadConfig(Section):
    """Reloading the configuration while the gateway runs."""

    watch: Bool = Field(
        True, description="Whether to reload when this file, or one that it names, has changed."
    )
    interval: PositiveDuration = Field(
        1.0, description="How often the files are checked for changes."
    )
    debounce: Duration = Field(0.5, description="How long files must be unchanged before a reload.")


class Config(Section):
    """The whole file."""

    _filled: frozenset[Place] = PrivateAttr(default=frozenset())
    """Values that came from variables: maybe secrets, whatever their key."""

    listen: Listen = Field(default_factory=Listen, description="The data plane.")
    admin: Admin = Field(default_factory=Admin, description="Metrics, health, admin API.")
    authz: Authz | None = Field(
        None, description="External authorization for other proxies; off if not given."
    )
    workers: Int = Field(1, ge=1, le=256, description="Number of processes that share the port.")
    store: StoreUrl = Field(
        "sqlite:///./gateway.db",
        repr=False,  # it may hold a password
        description=(
            "URL of the store of clients and tokens: `sqlite:`, `redis:` and variants, or "
            "`postgresql:`. `none` for a gateway that issues no tokens and only verifies those of "
            "other issuers."
        ),
    )
    ready_without_store: Bool = Field(
        False, description="Whether `/readyz` is 200 while the store is unavailable."
    )
    provider: ProviderConfig = Field(
        default_factory=ProviderConfig, description="The OAuth 2.0 provider."
    )
    clients: dict[Text, ClientConfig] = Field(
        {},
        description=(
            "Clients by id, declared here and read-only elsewhere. One that is removed is "
            "disabled, and deleted after `provider.expired_client_retention`; `{}` removes all."
        ),
    )
    clients_dir: FileName | None = Field(
        None,
        description=(
            "Directory of further ones: each `*.yaml` file in it is a mapping as `clients`. "
            "Watched."
        ),
    )
    clients_owner: Name = Field(
        "config",
        description=(
            "Label of the gateways that declare the same clients. Gateways with other clients on "
            "the same store need another one."
        ),
    )
    jwt_issuers: list[JwtIssuerConfig] = Field(
        [], description="Issuers whose JWTs are accepted beside our own tokens."
    )
    introspection_servers: list[IntrospectionServerConfig] = Field(
        [], description="Issuers that are asked about tokens that are not ours, in this order."
    )
    identity_assertions: list[IdentityAssertionConfig] = Field(
        [],
        description=(
            "Identity providers whose word lets clients act for their users (ID-JAG), by the grant "
            "`urn:ietf:params:oauth:grant-type:jwt-bearer`; the first entry that fits counts."
        ),
    )
    workloads: list[WorkloadConfig] = Field(
        [],
        description=(
            "Workloads that authenticate by what their platform gives them, without a secret; the "
            "first entry that fits counts."
        ),
    )
    rate_limit: ClientsRateLimit | None = Field(
        None, description="How many requests each client may make to all routes together, else 429."
    )
    cache: Cache = Field(default_factory=Cache, description="The token cache.")
    access_log: AccessLogConfig = Field(
        default_factory=AccessLogConfig, description="The access log."
    )
    log: LogConfig = Field(default_factory=LogConfig, description="The log of the gateway itself.")
    tracing: TracingConfig | None = Field(
        None, description="OpenTelemetry spans; off if not given."
    )
    shutdown: Shutdown = Field(default_factory=Shutdown, description="What happens on SIGTERM.")
    reload: ReloadConfig = Field(
        default_factory=ReloadConfig, description="Reloading of this file while the gateway runs."
    )
    trusted_proxies: list[Proxy] = Field(
        [],
        description=(
            "Networks of proxies whose `X-Forwarded-*` and `Forwarded` fields are trusted; "
            "`unix` for peers on the Unix socket."
        ),
    )
    upstreams: dict[Name, UpstreamConfig] = Field({}, description="Groups of targets, by name.")
    maintenance: Maintenance | None = Field(
        None, description="All routes are closed for now, 503; the provider is not."
    )
    routes: list[RouteConfig] = Field([], description="Where requests go; see the precedence rule.")

    def note_filled(self, places: frozenset[Place]) -> None:
        """Note which values came from variables."""
        self._filled = places

    def filled_texts(self, *sections: str) -> set[str]:
        """Return the texts within these sections that came from variables."""
        found = (_text_at(self, place) for place in self._filled if place[0] in sections)
        return {text for text in found if text}


def _text_at(section: Any, place: Place) -> str:
    value = section
    for part in place:
        if isinstance(value, BaseModel):
            fields = type(value).model_fields
            names = [name for name, info in fields.items() if part in {name, info.alias}]
            value = getattr(value, names[0], None) if names else None
        elif isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list):
            value = value[part] if isinstance(part, int) and part < len(value) else None
        else:  # a section that is read into a dataclass
            value = getattr(value, str(part), None)
    return value if isinstance(value, str) else ""
