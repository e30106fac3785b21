"""`gateway check --online`: reach what a configuration names in the network."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial

from gateway.acme.errors import AcmeError
from gateway.acme.settings import AcmeSettings
from gateway.app.build.acme import acme_settings
from gateway.app.build.checks import Finding, is_gateway_at, store_urls
from gateway.app.build.provider import introspection_servers, jwt_issuers
from gateway.app.build.upstreams import build_upstreams
from gateway.app.issuer_client import IssuerClient
from gateway.app.json_client import JsonClient
from gateway.config import Config, ConfigProblem, LoadedConfig
from gateway.config.problems import Path
from gateway.config.users import UpstreamOidc
from gateway.metrics import Metrics
from gateway.oauth.external_issuers.introspection import IntrospectionServer, IntrospectionServers
from gateway.oauth.issuer_metadata import FetchError, discover, read_endpoint
from gateway.oauth.keys.remote import IssuerUnavailableError, RemoteKeys
from gateway.oauth.models import StoreError
from gateway.store import check_store
from gateway.store_url import NoStoreUrl, SqliteUrl, parse_store_url
from gateway.upstream.discovery import DnsResolver

TIMEOUT_S = 10.0
UNKNOWN_TOKEN = "gateway-check"
"""What introspection servers are asked about: they respond that it is not active."""

Reach = tuple[Path, Callable[[], Awaitable[object]]]


def find_unreachable(
    loaded: LoadedConfig, occupied: Sequence[ConfigProblem]
) -> list[ConfigProblem]:
    """Find what does not respond: the store, names of targets in DNS, issuers; and, of the ports
    that are `occupied`, those that another program has."""
    admin = loaded.config.admin
    if occupied and is_gateway_at(admin.host, admin.port):
        occupied = ()  # that of the gateway which runs
    # What is logged of a failure is in what is returned, too.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    found = asyncio.run(_reach_all(loaded.config))
    return [*occupied, *(loaded.problem(place, text) for place, text in found)]


async def _reach_all(config: Config) -> list[Finding]:
    async with AsyncExitStack() as stack:
        fetcher = JsonClient()
        stack.push_async_callback(fetcher.close)
        issuer_client = IssuerClient(fetcher)
        stack.push_async_callback(issuer_client.close)
        keys = RemoteKeys(fetcher.get, fetch_from=issuer_client.fetch_from)
        reaches: list[Reach] = [
            *_stores(config),
            *_names(config),
            *_issuers(config, fetcher, keys),
            *_acme(config),
        ]
        found = await asyncio.gather(*(_try(reach) for _, reach in reaches))
    return [(place, text) for (place, _), text in zip(reaches, found, strict=True) if text]


async def _try(reach: Callable[[], Awaitable[object]]) -> str:
    """Return what is wrong, or nothing."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await reach()
    except TimeoutError:
        return f"no response within {TIMEOUT_S:g}s"
    except (StoreError, FetchError, IssuerUnavailableError, AcmeError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _stores(config: Config) -> Iterator[Reach]:
    """The stores, changing nothing in a server: its schema is that of the gateway that runs."""
    for place, url in store_urls(config):
        where = parse_store_url(url)
        if isinstance(where, NoStoreUrl):
            continue
        if not isinstance(where, SqliteUrl) or os.path.exists(where.path):  # else `run` makes it
            yield place, partial(check_store, url)


def _names(config: Config) -> Iterator[Reach]:
    """Names of targets, looked up as the gateway would."""
    upstreams = build_upstreams(config, Metrics())
    for name, settings in config.upstreams.items():
        with closing(upstreams[name]) as upstream:
            resolver = DnsResolver(settings.dns.servers, family=settings.dns.family)
            for at, target in enumerate(upstream.targets):
                if target.has_name:
                    yield (
                        ("upstreams", name, "targets", at),
                        partial(resolver.look_up, target.host),
                    )


def _issuers(config: Config, fetcher: JsonClient, keys: RemoteKeys) -> Iterator[Reach]:
    for at, issuer in enumerate(jwt_issuers(config)):
        key = "issuer" if issuer.keys.jwks_uri is None else "jwks_uri"
        yield ("jwt_issuers", at, key), partial(keys.keys, issuer.keys)
    for at, server in enumerate(introspection_servers(config)):
        yield (
            ("introspection_servers", at, "endpoint"),
            partial(_introspect, server, fetcher),
        )
    users = config.provider.users
    if users.source == "oidc" and (oidc := users.oidc) is not None:
        yield ("provider", "users", "oidc", "issuer"), partial(_discover, oidc, fetcher, keys)


def _acme(config: Config) -> Iterator[Reach]:
    """The directory of the CA."""
    settings = acme_settings(config)
    if settings is not None:
        yield ("listen", "tls", "acme", "directory"), partial(_reach_directory, settings)


async def _reach_directory(settings: AcmeSettings) -> None:
    from gateway.acme.client import fetch_directory  # noqa: PLC0415 - an extra

    await asyncio.to_thread(fetch_directory, settings)


async def _introspect(server: IntrospectionServer, fetcher: JsonClient) -> None:
    await IntrospectionServers([server], fetcher.post_form).find(
        server.token_prefix + UNKNOWN_TOKEN
    )


async def _discover(oidc: UpstreamOidc, fetcher: JsonClient, keys: RemoteKeys) -> None:
    metadata = await discover(fetcher.get, oidc.issuer)
    await keys.keys(read_endpoint(metadata, "jwks_uri"))
