"""Values that the packages work with, made by the configuration: tests have its defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.app.build.derive import derive
from gateway.app.build.listeners import client_limits
from gateway.app.build.provider import (
    build_jwt_issuer,
    provider_policy,
    refresh_policy,
    signing_policy,
    workload_rule,
)
from gateway.config import Config
from gateway.config.issuers import IntrospectionServerConfig, JwtIssuerConfig
from gateway.config.provider import RefreshTokensConfig
from gateway.config.users import UpstreamOidc
from gateway.config.workloads import WorkloadConfig
from gateway.oauth.external_issuers.introspection import IntrospectionServer
from gateway.oauth.external_issuers.jwt import JwtIssuer
from gateway.oauth.policy import ProviderPolicy, RefreshPolicy
from gateway.oauth.users.upstream import UpstreamSettings
from gateway.oauth.workloads.rules import WorkloadRule

_DEFAULT = Config()
CLIENT_LIMITS = client_limits(_DEFAULT)
SIGNING = signing_policy(_DEFAULT)


def policy(**changes: Any) -> ProviderPolicy:
    """The default policy with some values changed."""
    return replace(provider_policy(_DEFAULT), **changes)


def refresh(**changes: Any) -> RefreshPolicy:
    """The default policy of refresh tokens with some values changed."""
    return replace(refresh_policy(RefreshTokensConfig()), **changes)


def jwt_issuer(
    name: str, issuer: str, jwks_uri: str | None, *audience: str, **keys: Any
) -> JwtIssuer:
    """An issuer whose JWTs are accepted."""
    given = {"name": name, "issuer": issuer, "jwks_uri": jwks_uri, "audience": list(audience)}
    return build_jwt_issuer(JwtIssuerConfig.model_validate(given | keys))


def workload(**keys: Any) -> WorkloadRule:
    """A rule for workloads."""
    return workload_rule(WorkloadConfig.model_validate(keys))


def introspection_server(**keys: Any) -> IntrospectionServer:
    """An issuer that is asked about its tokens."""
    return derive(IntrospectionServer, IntrospectionServerConfig.model_validate(keys))


def sign_in_upstream(**keys: Any) -> UpstreamSettings:
    """A provider at which users sign in."""
    redirect_uri = "http://gateway.test/authorize/callback"
    section = UpstreamOidc.model_validate(keys)
    return derive(UpstreamSettings, section, redirect_uri=redirect_uri)
