"""The rules of a provider, and what its configuration says of the resources it protects."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from gateway.oauth.models import (
    ClientRenewal,
    CredentialSource,
    RefreshStrategy,
    RegistrationMode,
    TokenFormat,
)
from gateway.oauth.workloads.rules import WorkloadRule
from gateway.rate_limit import RateLimit

CLIENT_CREDENTIALS = "client_credentials"
AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"
SLASHES_OF_ORIGIN = 2
"""In a URL without a path."""
USER_GRANTS = (AUTHORIZATION_CODE, REFRESH_TOKEN)
"""The grants that a user consents to."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class IdentityAssertionRule:
    """Which clients may use the assertions of an issuer, and for what."""

    issuer: str
    """Name of the issuer."""
    clients: tuple[str, ...]
    """Empty for each that is registered for the grant."""
    scopes: tuple[str, ...] | None
    """Scopes that tokens may have; None for those of the client."""
    token_ttl_s: float | None


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of an MCP server, or several of which the names are alike."""

    description: str
    """For users."""
    scopes: tuple[str, ...]
    """Those that calling it needs beside those of the resource."""


def name_in_words(name: str) -> str:
    """The name of a tool as users read it: `get_weather` is "get weather"."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = " ".join(re.split(r"[\s_.:/-]+", spaced)).strip().lower()
    return words.replace("*", "…") if words.strip("* ") else "everything else"


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """A route as clients know it (RFC 9728 section 1.2)."""

    path: str
    """Canonical; a prefix at segment boundaries, unless `exact`."""
    exact: bool = False
    host: str = ""
    """The host that it is on, where it is one by name; empty for that of the issuer."""
    scopes: tuple[str, ...] = ()
    """Scopes that a token needs here."""
    audiences: tuple[str, ...] = ()
    """What the audience of a token may call this resource, beside its own URL."""
    token_format: TokenFormat | None = None
    """What tokens for this resource look like, where the client has no say in it."""
    tools: tuple[Tool, ...] = ()
    """Of an MCP server: what can be called there."""


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """Rules for refresh tokens. Whether there are any, `ProviderPolicy.grant_types` says."""

    strategy: RefreshStrategy
    """`reusable`: a client keeps the one that it got. `rotating`: each use replaces it."""
    ttl_s: float
    """Lifetime of a refresh token that is not used; each use resets it."""
    max_ttl_s: float
    """How long one and all that follow from it live together."""
    reuse_grace_s: float
    """How long a client may ask again with one that was replaced, and gets the same response."""


@dataclass(frozen=True)
class ProviderPolicy:
    """The rules of this provider."""

    issuer: str
    token_ttl_s: float
    client_ttl_s: float | None
    """How long a registration lasts unless renewed; None is for ever."""
    renew: ClientRenewal
    """Which clients have their registration extended by using it."""
    grant_types: tuple[str, ...]
    scopes: tuple[str, ...]
    """All scopes there are; empty where scopes are unused."""
    default_scopes: tuple[str, ...]
    refresh: RefreshPolicy
    audiences: tuple[str, ...]
    """Resources that tokens may be for (RFC 8707), beside the routes of this gateway."""
    token_format: TokenFormat
    credentials_in: frozenset[CredentialSource]
    registration_mode: RegistrationMode
    registration_token: str | None = field(repr=False)
    registration_scopes: tuple[str, ...] | None
    """Scopes that clients get by a registration over HTTP; None for the default of the mode."""
    registration_grant_types: tuple[str, ...] | None
    """Grants that they get; None for the default of the mode."""
    reserved_client_ids: frozenset[str]
    """Ids that routes name, or the configuration declares: an operator's to register."""
    redirect_schemes: frozenset[str]
    """Schemes of redirect URIs beside those with a dot, https and http on this host."""
    redirect_hosts: tuple[str, ...]
    """Hosts that the https redirect URIs of clients in mode `public` may name; `*.` for all below
    one."""
    registration_rate_limit: RateLimit
    """For each network, where every peer can register."""
    total_registration_rate_limit: RateLimit
    """For all networks together, where every peer can register."""
    unused_client_ttl_s: float | None
    """How long a client that registered itself is kept until its first use; None is as long as
    any other."""
    client_document_hosts: tuple[str, ...] | None
    """Hosts of the metadata documents that client ids may be the URLs of; `*.` for all below one,
    empty for any. None where client ids are no URLs."""
    fail_if_present: bool
    client_jwks_uris: tuple[str, ...]
    """Beginnings of the `jwks_uri` that clients may register; none: keys are sent, not linked."""
    cors_origins: tuple[str, ...]
    """Origins whose pages may call the endpoints; `*` for any, `*.` for all below one."""
    takes_certificates: bool
    """Whether the certificates of clients get here, from the listener or a proxy."""
    token_path: str
    create_client_path: str
    validate_path: str
    revoke_path: str
    introspect_path: str
    register_path: str
    authorize_path: str
    code_ttl_s: float
    resources: tuple[ProtectedResource, ...]
    workloads: tuple[WorkloadRule, ...] = ()
    """Workloads that authenticate by what their platform gives them; the first that fits counts."""
    identity_assertions: tuple[IdentityAssertionRule, ...] = ()
    """Issuers whose word lets clients act for their users."""
    other_authorization_servers: tuple[str, ...] | None = None
    """The issuers of all tokens, where this gateway issues none; None where it does."""

    @property
    def authorization_servers(self) -> tuple[str, ...]:
        """The issuers at which clients get tokens (RFC 9728 section 2)."""
        others = self.other_authorization_servers
        return (self.issuer,) if others is None else others

    @property
    def origin(self) -> str:
        """Scheme and authority of the issuer, on which the endpoints are."""
        parts = urlsplit(self.issuer)
        return f"{parts.scheme}://{parts.netloc}"

    def url(self, path: str) -> str:
        """A path of the provider as clients reach it."""
        return self.origin + path

    def resource_url(self, resource: ProtectedResource) -> str:
        """Identifier of a protected resource (RFC 9728 section 1.2)."""
        return resource_url(self.issuer, resource.path, resource.host)

    @property
    def is_registration_open(self) -> bool:
        """Whether every peer can register clients, of whatever kind."""
        return self.registration_mode in {"open", "public"}

    @property
    def registrable_scopes(self) -> tuple[str, ...]:
        """The scopes that a client can register over HTTP."""
        if self.registration_scopes is not None:
            return self.registration_scopes
        return self.default_scopes if self.is_registration_open else self.scopes

    @property
    def registrable_grant_types(self) -> tuple[str, ...]:
        """The grants that a client can register over HTTP. Not to exchange the tokens of others,
        nor their assertions, where every peer can become a client."""
        offered = self.grant_types
        if self.registration_grant_types is not None:
            offered = self.registration_grant_types
        elif self.registration_mode == "open":
            offered = tuple(grant for grant in offered if grant not in {TOKEN_EXCHANGE, JWT_BEARER})
        if self.registration_mode == "public":
            offered = tuple(grant for grant in offered if grant in USER_GRANTS)
        return offered

    def tools_of(self, audience: Collection[str]) -> tuple[Tool, ...]:
        """The tools of the resources that a token is for."""
        return tuple(
            tool
            for resource in self.resources
            if resource.tools and self.resource_url(resource) in audience
            for tool in resource.tools
        )

    def name_resources(self, requested: Iterable[str]) -> tuple[str, ...]:
        """The requested resources as this provider writes them, each once. Those that it does not
        know stay as they are."""
        return tuple(dict.fromkeys(map(self._name_resource, requested)))

    def _name_resource(self, requested: str) -> str:
        url = normalize_url(requested)
        if url in self._known_by_url:
            return self._known_by_url[url]
        # What is below the path of a route is that route, as it is for requests.
        above = url.partition("?")[0]
        while above.count("/") > SLASHES_OF_ORIGIN:
            above = above.rpartition("/")[0]
            if above in self._prefixes_by_url:
                return self._prefixes_by_url[above]
        return requested

    def resources_above(self, path: str, host: str) -> Iterator[ProtectedResource]:
        """Yield the resources that a path is below, nearest first; on `host`, else on that of the
        issuer."""
        while "/" in path:
            path = path.rpartition("/")[0]
            for name in dict.fromkeys((host, "")):
                if resource := self._prefixes.get((path or "/", name)):
                    yield resource

    @cached_property
    def _prefixes(self) -> Mapping[tuple[str, str], ProtectedResource]:
        prefixes = (resource for resource in self.resources if not resource.exact)
        return {(resource.path, resource.host): resource for resource in prefixes}

    @cached_property
    def _known_by_url(self) -> Mapping[str, str]:
        # Made once: there is one for each route, and any client can name resources.
        return {normalize_url(name): name for name in self.known_audiences}

    @cached_property
    def _prefixes_by_url(self) -> Mapping[str, str]:
        urls = map(self.resource_url, self._prefixes.values())
        return {normalize_url(url): url for url in urls}

    @cached_property
    def known_audiences(self) -> frozenset[str]:
        """Everything that a token can be asked for (RFC 8707 section 2)."""
        return frozenset((self.issuer, *self.audiences, *self.resource_names))

    @cached_property
    def resource_names(self) -> frozenset[str]:
        """The names of the resources in tokens: their URLs, and those of their own."""
        return frozenset(self._resource_names())

    def _resource_names(self) -> Iterable[str]:
        for resource in self.resources:
            yield self.resource_url(resource)
            yield from resource.audiences


def normalize_url(uri: str) -> str:
    """A URL as all that are equivalent to it (RFC 3986 section 6.2.3): scheme and host in lower
    case, without the default port, an empty path and a slash at its end. What is no web URL stays
    as it is."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return uri
    scheme = parts.scheme.lower()
    is_plain = parts.username is None and "#" not in uri
    if scheme not in _DEFAULT_PORTS or not parts.hostname or not is_plain:
        return uri
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = host if port in {None, _DEFAULT_PORTS[scheme]} else f"{host}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{authority}{parts.path.rstrip('/')}{query}"


def resource_url(issuer: str, path: str, host: str = "") -> str:
    """The URL of a path on `host`, or on that of the issuer. Never made from a Host header."""
    parts = urlsplit(issuer)
    port = f":{parts.port}" if parts.port else ""
    authority = f"{host}{port}" if host else parts.netloc
    return f"{parts.scheme}://{authority}{'' if path == '/' else path}"
