"""The configuration as frozen values. Key by key this is the schema of the YAML file.

Only the shape of each value is judged here; what they must have to do with each other
is in `rules.py`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.json_schema import WithJsonSchema

from gateway.config.durations import PATTERN, parse_duration
from gateway.config.source import Filled
from gateway.store_url import parse_store_url

MAX_PORT = 65535
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
_SCOPE = re.compile(r"[!#-\[\]-~]+")
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!$-;=?-Z_a-z~%\[\]]+")
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


def _check_scope(scope: str) -> str:
    if not _SCOPE.fullmatch(scope):
        raise ValueError("expected visible ASCII without space, quote and backslash (RFC 6749 3.3)")
    return scope


def _check_method(method: str) -> str:
    if not _METHOD.fullmatch(method):
        raise ValueError("expected an upper-case method such as GET")
    return method


def _check_host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError(
            "expected a lower-case host name without port, optionally with a leading `*.`"
        )
    return host


def _check_network(cidr: str) -> str:
    try:
        ipaddress.ip_network(cidr)
    except ValueError:
        try:
            suggestion = ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            raise ValueError("expected a network such as 10.0.0.0/8 or ::1/128") from None
        raise ValueError(f"has host bits set, did you mean {suggestion}?") from None
    return cidr


def _check_target(url: str) -> str:
    expected = "expected http://host:port, https://host:port or unix:///path"
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or 0 < parts.port <= MAX_PORT
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return url
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_valid:
        raise ValueError(expected)
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{expected}, without path, query and user")
    return url


def _check_issuer(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("expected an http or https URL without query and fragment (RFC 8414 2)")
    return url


def _check_audience(uri: str) -> str:
    if not _ABSOLUTE_URI.fullmatch(uri):
        raise ValueError("expected an absolute URI without a fragment (RFC 8707 2)")
    return uri


def _check_header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("expected the name of a header field such as Client-Cert")
    return name


def _check_url_prefix(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.endswith("/"):
        raise ValueError("expected an http or https URL that ends with a slash")
    return url


def _check_store(url: str) -> str:
    parse_store_url(url)
    return url


def _as_int(value: Any) -> Any:
    if isinstance(value, Filled) and re.fullmatch("[0-9]+", value):
        return int(value)
    return value


def _as_bool(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, Filled) else value


def _check_secret(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value():
        raise ValueError("must not be empty")
    return secret


def _as_duration(value: Any) -> float:
    return parse_duration(value)


def _check_positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than 0")
    return seconds


_DURATION_SCHEMA = WithJsonSchema({"anyOf": [{"type": "string", "pattern": PATTERN}, {"const": 0}]})
Duration = Annotated[float, BeforeValidator(_as_duration), _DURATION_SCHEMA]
"""Seconds; 0 is "none" or "never", as the key says."""
PositiveDuration = Annotated[
    float, BeforeValidator(_as_duration), AfterValidator(_check_positive), _DURATION_SCHEMA
]
Scope = Annotated[str, AfterValidator(_check_scope)]
Method = Annotated[str, AfterValidator(_check_method)]
Host = Annotated[str, AfterValidator(_check_host)]
Network = Annotated[str, AfterValidator(_check_network)]
TargetUrl = Annotated[str, AfterValidator(_check_target)]
IssuerUrl = Annotated[str, AfterValidator(_check_issuer)]
Audience = Annotated[str, AfterValidator(_check_audience)]
HeaderName = Annotated[str, AfterValidator(_check_header_name)]
UrlPrefix = Annotated[str, AfterValidator(_check_url_prefix)]
StoreUrl = Annotated[str, AfterValidator(_check_store)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Int = Annotated[int, BeforeValidator(_as_int)]
Bool = Annotated[bool, BeforeValidator(_as_bool)]
Port = Annotated[Int, Field(ge=0, le=MAX_PORT)]
Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
Path = Annotated[str, Field(pattern=r"^/")]


class Section(BaseModel):
    """A mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ListenTls(Section):
    """TLS of the data plane."""

    cert: str = Field(description="File with the certificate chain, PEM.")
    key: str = Field(description="File with the private key, PEM.")
    client_ca: str | None = Field(
        None, description="File with the CAs of client certificates, PEM; asks for one if given."
    )
    client_auth: Literal["required", "optional"] = Field(
        "required", description="Whether a client must have a certificate, if `client_ca` is given."
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
    """How large request heads may be."""

    head_bytes: Int = Field(32768, ge=1024, description="Bytes of a request head, else 431.")
    headers: Int = Field(100, ge=1, description="Fields of a request head, else 431.")


class Listen(Section):
    """The data plane."""

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104
    port: Port = Field(8080, description="Port to listen on; 0 takes any free one.")
    tls: ListenTls | None = Field(None, description="Serve HTTPS; without it, plain HTTP.")
    max_connections: Int = Field(
        10000, ge=1, description="Open client connections; more are answered 503 and closed."
    )
    timeouts: ListenTimeouts = Field(
        default_factory=ListenTimeouts, description="Deadlines for clients."
    )
    limits: ListenLimits = Field(
        default_factory=ListenLimits, description="Sizes of request heads."
    )


class Admin(Section):
    """The admin listener."""

    host: str = Field("127.0.0.1", description="Address to listen on; not for the public.")
    port: Port = Field(9090, description="Port to listen on; 0 takes any free one.")
    token: Secret | None = Field(
        None, description="Bearer token of the admin API; without it, the API is off."
    )


class Registration(Section):
    """Who may register clients over HTTP."""

    mode: Literal["token", "open", "off"] = Field(
        "token", description="`token` asks for the token below, `open` for nothing, `off` refuses."
    )
    token: Secret | None = Field(
        None, description="Bearer token of those who may register clients (mode `token`)."
    )
    fail_if_present: Bool = Field(
        True,
        description="Answer 409 for a client id that is taken; "
        "false replaces the client and revokes its tokens.",
    )
    jwks_uris: list[UrlPrefix] = Field(
        [],
        description="Beginnings of the `jwks_uri` that a registration over HTTP may name; "
        "empty: none, since the gateway will call them.",
    )


class Jwt(Section):
    """How access tokens that are JWTs are signed."""

    algorithm: Literal["ES256", "EdDSA"] = Field("ES256", description="Algorithm of the signature.")
    rotate_every: PositiveDuration = Field(
        2592000.0, description="How long a key signs; the next one is published a day ahead."
    )


class FailedClientLimit(Section):
    """Stops guessing of secrets, per client id and source address."""

    failures: Int = Field(5, ge=1, description="Failures after which the answer is 429.")
    window: PositiveDuration = Field(
        600.0, description="The period they are counted in, from the first one."
    )


class Dpop(Section):
    """Tokens that are bound to a key of the client (RFC 9449)."""

    require_nonce: Bool = Field(
        False, description="Ask for a nonce in every proof, so that none is made ahead of time."
    )


class Provider(Section):
    """The OAuth 2.0 provider."""

    issuer: IssuerUrl = Field(
        "http://127.0.0.1:8080", description="URL of this provider; never derived from Host."
    )
    token_path: Path = Field("/token", description="Path of the token endpoint.")
    create_client_path: Path = Field(
        "/createClient", description="Path of the registration endpoint."
    )
    validate_path: Path = Field("/validate", description="Path of the validation endpoint.")
    revoke_path: Path = Field("/revoke", description="Path of the revocation endpoint.")
    introspect_path: Path = Field("/introspect", description="Path of the introspection endpoint.")
    register_path: Path = Field(
        "/register", description="Path of dynamic client registration and its management."
    )
    token_ttl: PositiveDuration = Field(3600.0, description="How long an access token lives.")
    client_ttl: Duration = Field(
        2592000.0, description="How long a client lives unless renewed; 0 is for ever."
    )
    client_expiry_warning: Duration = Field(
        604800.0, description="How long before its end a client is warned of."
    )
    expired_client_retention: Duration = Field(
        2592000.0, description="How long an expired client is kept and can be renewed."
    )
    grant_types: list[Literal["client_credentials"]] = Field(
        ["client_credentials"], min_length=1, description="Grants that the provider gives."
    )
    scopes: list[Scope] = Field([], description="All scopes there are; empty: scopes are unused.")
    default_scopes: list[Scope] = Field(
        [], description="Scopes of a token for which none were asked."
    )
    audiences: list[Audience] = Field(
        [],
        description="Resources that tokens can be asked for by `resource`, beside the routes "
        "of this gateway.",
    )
    token_format: Literal["opaque", "jwt"] = Field(
        "opaque",
        description="What access tokens look like where neither the client nor the route says.",
    )
    jwt: Jwt = Field(default_factory=Jwt, description="How JWTs are signed.")
    seal_key: Secret | None = Field(
        None,
        description="Seals private keys in the store; the same for all processes on it, at "
        "least 32 characters. Without it, `seal_key_file` is used.",
    )
    seal_key_file: str = Field(
        "./gateway.key",
        min_length=1,
        description="File with that secret, made when it is first needed.",
    )
    dpop: Dpop = Field(
        default_factory=Dpop, description="Tokens that are bound to a key of the client."
    )
    client_certificate_header: HeaderName | None = Field(
        None,
        description="Field in which `trusted_proxies` hand on the client's certificate: RFC 9440, "
        "escaped PEM, or Envoy's.",
    )
    credentials_in: list[Literal["basic", "form", "header", "query"]] = Field(
        ["basic", "form", "header"],
        min_length=1,
        description="Where clients may put their credentials.",
    )
    registration: Registration = Field(
        default_factory=Registration, description="Who may register clients over HTTP."
    )
    failed_client_limit: FailedClientLimit = Field(
        default_factory=FailedClientLimit, description="Stops guessing of secrets."
    )


class RateLimit(Section):
    """How many requests may be made."""

    requests: Int = Field(ge=1, description="Requests allowed in the time below, on average.")
    per: PositiveDuration = Field(1.0, description="The time they are counted in.")
    burst: Int | None = Field(
        None, ge=1, description="Requests allowed at once; as many as `requests` if not given."
    )


class RouteRateLimit(RateLimit):
    """How many requests may be made to a route."""

    by: Literal["client", "route"] = Field(
        "client",
        description="Counted for each client (each address, without a token), or all together.",
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
        "does not answer; 0 is not at all.",
    )
    max_store_reads: Int = Field(
        64,
        ge=1,
        description="Tokens looked up in the store at once; others wait shortly, then 503.",
    )


class AccessLog(Section):
    """The access log."""

    path: str = Field(
        "-", min_length=1, description="File to append JSON lines to, `-` for stdout, or `off`."
    )


class Shutdown(Section):
    """What happens on SIGTERM."""

    delay: Duration = Field(
        5.0, description="Keep serving so long with readiness down, so that nobody sends more."
    )
    grace: Duration = Field(25.0, description="Then wait so long for requests in flight to finish.")


class UpstreamTimeouts(Section):
    """Deadlines towards an upstream; 0 is none."""

    connect: Duration = Field(3.0, description="For a connection, TLS included, else 504.")
    response_head: Duration = Field(
        30.0, description="From the request being sent to the head of the answer, else 504."
    )
    idle: Duration = Field(60.0, description="The longest silence within an exchange.")
    keepalive: Duration = Field(60.0, description="How long an unused connection is kept.")
    tunnel: Duration = Field(3600.0, description="The longest silence within a WebSocket.")


class UpstreamTls(Section):
    """TLS towards `https://` targets."""

    ca: str | None = Field(None, description="File with the CAs to trust, PEM; else the system's.")
    verify: Bool = Field(True, description="Check the certificate and its name.")
    server_name: str | None = Field(
        None, description="Name to ask for and to check; else the target's host."
    )


class Upstream(Section):
    """A group of targets that serve the same thing."""

    targets: list[TargetUrl] = Field(
        min_length=1, description="URLs: http://host:port, https://host:port, unix:///path."
    )
    balance: Literal["round_robin", "least_requests", "random_two", "consistent_hash"] = Field(
        "round_robin", description="How a target is chosen."
    )
    timeouts: UpstreamTimeouts = Field(
        default_factory=UpstreamTimeouts, description="Deadlines towards the targets."
    )
    tls: UpstreamTls | None = Field(None, description="How `https://` targets are checked.")


class Match(Section):
    """Which requests a route takes."""

    path: Path = Field(description="Prefix on segment borders, in canonical form.")
    exact: Bool = Field(False, description="Match the path only as it stands.")
    hosts: list[Host] = Field([], description="Hosts, `*.` for all below one; empty: any.")
    methods: list[Method] = Field([], description="Methods; empty: any.")


class Rewrite(Section):
    """How the path changes on its way."""

    strip_prefix: Path | None = Field(None, description="Cut off the front of the path.")


class Route(Section):
    """Where requests go, and who may send them."""

    name: Name = Field(description="Name in metrics and logs.")
    match: Match = Field(description="Which requests it takes.")
    upstream: str = Field(description="Name of the upstream they go to.")
    auth: Literal["required", "none", "optional"] = Field(
        "required", description="Whether a token is needed, ignored, or checked if given."
    )
    scopes: list[Scope] = Field([], description="Scopes that the token must have, all of them.")
    clients: list[str] = Field([], description="If given, only tokens of these clients pass.")
    audience: list[Audience] = Field(
        [],
        description="If given, only tokens for one of these, or for the URL of this route, pass.",
    )
    token_format: Literal["opaque", "jwt"] | None = Field(
        None, description="What tokens for this route look like, unless the client says."
    )
    rewrite: Rewrite = Field(default_factory=Rewrite, description="How the path changes.")
    rate_limit: RouteRateLimit | None = Field(
        None, description="How many requests may be made to this route, else 429."
    )
    forward_token: Bool = Field(
        False, description="Pass the Authorization header on to the upstream."
    )


class Config(Section):
    """The whole file."""

    listen: Listen = Field(default_factory=Listen, description="The data plane.")
    admin: Admin = Field(default_factory=Admin, description="Metrics, health, admin API.")
    workers: Int = Field(1, ge=1, le=256, description="Processes sharing the port.")
    store: StoreUrl = Field(
        "sqlite:///./gateway.db",
        repr=False,  # it may hold a password
        description="Where clients and tokens live: a `sqlite:` or `redis:` URL.",
    )
    ready_without_store: Bool = Field(
        False, description="Whether `/readyz` says yes while the store does not answer."
    )
    provider: Provider = Field(default_factory=Provider, description="The OAuth 2.0 provider.")
    rate_limit: RateLimit | None = Field(
        None, description="How many requests each client may make to all routes together, else 429."
    )
    cache: Cache = Field(default_factory=Cache, description="The token cache.")
    access_log: AccessLog = Field(default_factory=AccessLog, description="The access log.")
    shutdown: Shutdown = Field(default_factory=Shutdown, description="What happens on SIGTERM.")
    trusted_proxies: list[Network] = Field(
        [], description="Networks whose X-Forwarded-* and Forwarded are believed."
    )
    upstreams: dict[Name, Upstream] = Field({}, description="Groups of targets, by name.")
    routes: list[Route] = Field([], description="Where requests go; see the precedence rule.")
