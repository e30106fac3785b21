"""Calls of workloads to a provider, with tokens of their platforms."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from support import settings
from support.jose_values import ASSERTION_TYPE, make_key
from support.platforms import (
    CLUSTER,
    GITHUB,
    GITLAB,
    SPIRE,
    github_token,
    gitlab_token,
    jwt_svid,
    service_account_token,
)
from support.provider import FORM, Provider, Reply
from support.servers.issuer import Issuer

from gateway.oauth.policy import JWT_BEARER, TOKEN_EXCHANGE

US = "http://gateway.test"
KEY = make_key("RS256")
SPIFFE_KEY = make_key("ES256")
JWT = "urn:ietf:params:oauth:token-type:jwt"


def trust(provider: Provider, running: Issuer) -> None:
    """Have the provider know the four platforms, whose keys are at one issuer."""
    urls = {"cluster": CLUSTER, "spire": SPIRE, "github": GITHUB, "gitlab": GITLAB}
    provider.trust(
        *(
            settings.jwt_issuer(name, url, running.jwks_uri, "https://api.example",
                                access_tokens=False)
            for name, url in urls.items()
        )
    )  # fmt: skip


def use_rules(provider: Provider, *rules: Any) -> None:
    """Give the provider these rules, and the grants that go with them."""
    grants = ("client_credentials", JWT_BEARER, TOKEN_EXCHANGE)
    provider.change(workloads=rules, grant_types=grants)


async def assert_by(provider: Provider, assertion: str, **form: str) -> Reply:
    """Ask for a token by client authentication."""
    parameters = {
        "grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    } | form  # fmt: skip
    return await provider.fetch("POST", "/token", FORM, urlencode(parameters))


async def grant_by(
    provider: Provider, assertion: str, headers: dict[str, str] | None = None, **form: str
) -> Reply:
    """Ask for a token by the JWT bearer grant."""
    parameters = {"grant_type": JWT_BEARER, "assertion": assertion} | form
    return await provider.fetch("POST", "/token", FORM | (headers or {}), urlencode(parameters))


async def exchange(
    provider: Provider, token: str, headers: dict[str, str] | None = None, **form: str
) -> Reply:
    """Ask for a token by token exchange."""
    parameters = {
        "grant_type": TOKEN_EXCHANGE, "subject_token": token, "subject_token_type": JWT,
    } | form  # fmt: skip
    return await provider.fetch("POST", "/token", FORM | (headers or {}), urlencode(parameters))


WAYS: list[Any] = [assert_by, grant_by, exchange]


def make_token(kind: str, now: float, **claims: Any) -> str:
    """Make a token as a platform of that kind would."""
    make = {
        "cluster": lambda: service_account_token(KEY, US, now, **claims),
        "spire": lambda: jwt_svid(SPIFFE_KEY, US, now, **claims),
        "github": lambda: github_token(KEY, US, now, **claims),
        "gitlab": lambda: gitlab_token(KEY, US, now, **claims),
    }
    return make[kind]()
