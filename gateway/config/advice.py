"""Finds what works and is not what an operator may expect: `gateway check` warns of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.config.acme import find_acme_warnings
from gateway.config.model import Config
from gateway.config.problems import Path
from gateway.oauth.client_metadata import is_loopback

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


SHARED_ISSUERS = frozenset({"token.actions.githubusercontent.com", "gitlab.com"})
"""Issuers whose tokens anyone can get, for subjects of their own."""
WIDE_PREFIX = {4: 8, 6: 32}
"""Networks of trusted proxies from this prefix length up name more than anyone's own hosts."""


def find_warnings(config: Config) -> Iterator[tuple[Path, str]]:
    """Each warning, with the place of the value."""
    yield from _of_registration(config)
    if config.listen.port is None and config.listen.unix is None:
        yield ("listen", "port"), "is off without `listen.unix`: systemd must pass a socket"
    if config.listen.tls is not None and config.listen.tls.acme is not None:
        acme = config.listen.tls.acme
        yield from find_acme_warnings(("listen", "tls", "acme"), acme)
        is_shared = not (acme.storage or config.store).startswith("sqlite:")
        if is_shared and config.provider.seal_key is None:
            yield (
                ("provider", "seal_key"),
                "is not set: each replica makes a key of its own in seal_key_file, and can't read "
                "the certificates of the others",
            )
    issuer = urlsplit(config.provider.issuer)
    if issuer.scheme == "http" and not _is_local(issuer.hostname or ""):
        yield (
            ("provider", "issuer"),
            "is http: tokens and secrets of clients can be read on the way, and OAuth clients "
            "expect https (RFC 8414 section 2)",
        )
    for at, proxy in enumerate(config.trusted_proxies):
        if proxy != "unix" and _is_wide(proxy):
            yield (
                ("trusted_proxies", at),
                f"trusts {ipaddress.ip_network(proxy).num_addresses:,} addresses: each may claim "
                "to be any client; name the proxies only",
            )
    yield from _of_workloads(config)
    for at, route in enumerate(config.routes):
        if route.client_secret is not None and "query" in route.client_secret.sent_in:
            yield (
                ("routes", at, "client_secret", "sent_in"),
                "reads secrets from the query: whatever is in front of the gateway, and the client "
                "itself, may log the URL",
            )
        parameters = [part for part in route.match.path.split("/") if part.startswith(":")]
        if parameters:
            yield (
                ("routes", at, "match", "path"),
                f"matches {parameters[0]!r} literally; for any segment write the prefix before "
                "it, or `regex`",
            )


def _of_workloads(config: Config) -> Iterator[tuple[Path, str]]:
    issuers = {issuer.name: issuer for issuer in config.jwt_issuers}
    audiences = {
        config.provider.issuer,
        *config.provider.audiences,
        *(name for route in config.routes for name in route.audience),
    }
    for at, rule in enumerate(config.workloads):
        issuer = issuers.get(rule.issuer or "")
        host = urlsplit(issuer.issuer).hostname if issuer is not None else None
        if issuer is not None and issuer.access_tokens:
            yield (
                ("workloads", at, "issuer"),
                f"names an issuer whose tokens routes accept, too, of every subject: set "
                f"`access_tokens: false` for {issuer.name!r} unless that is meant",
            )
        owner = rule.subject.partition(":")[2].partition("/")[0]
        if host in SHARED_ISSUERS and ("*" in owner or "*" in rule.subject.partition(":")[0]):
            yield (
                ("workloads", at, "subject"),
                f"takes jobs of anyone at {host}: name the owner before the first `/`",
            )
        for number, audience in enumerate(rule.audiences):
            if audience not in audiences and not _is_of_host(audience, config.provider.issuer):
                yield (
                    ("workloads", at, "audiences", number),
                    f"{audience!r} is the audience of no route and not one of provider.audiences",
                )
        if rule.scopes is None and config.provider.scopes:
            yield (
                ("workloads", at),
                f"lists no scopes: unless the client {rule.client_id!r} is registered, it gets no "
                "token",
            )


def _is_of_host(audience: str, issuer: str) -> bool:
    return urlsplit(audience).netloc == urlsplit(issuer).netloc


def _is_wide(network: str) -> bool:
    parsed = ipaddress.ip_network(network)
    return parsed.prefixlen <= WIDE_PREFIX[parsed.version]


def _is_local(host: str) -> bool:
    # `.test` is reserved for tests (RFC 6761 section 6.2).
    return is_loopback(host) or host.endswith((".localhost", ".test"))


def _of_registration(config: Config) -> Iterator[tuple[Path, str]]:
    provider = config.provider
    registration = provider.registration
    where: Path = ("provider", "registration")
    if registration.mode != "open":
        return
    scopes = provider.default_scopes if registration.scopes is None else registration.scopes
    if provider.scopes and not scopes:
        gets = "no scope, and so no token"
        advice = "list some in `registration.scopes`"
    else:
        gets = f"the scopes {' '.join(scopes)}" if scopes else "tokens"
        advice = "mode token restricts that"
    yield (*where, "mode"), f"any peer can register a client, which gets {gets}: {advice}"
    for at, route in enumerate(config.routes):
        if needed := {*route.all_scopes, *route.any_scopes} & set(registration.scopes or ()):
            yield (
                (*where, "scopes"),
                f"any peer can register for {' '.join(sorted(needed))}, which routes[{at}] "
                f"({route.name!r}) requires",
            )
    if TOKEN_EXCHANGE in (registration.grant_types or ()):
        yield (
            (*where, "grant_types"),
            "any peer can register for token exchange, and exchange tokens that it sees",
        )
