"""The pages of the authorization endpoint, where the configuration has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.app.build.derive import derive
from gateway.app.provider import Provider
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.oauth.endpoints import ProviderEndpoint
from gateway.oauth.policy import AUTHORIZATION_CODE, ProviderPolicy
from gateway.oauth.users.consents import Consents
from gateway.oauth.users.upstream import UpstreamProvider, UpstreamSettings


def authorization_pages(
    config: Config, provider: Provider, policy: ProviderPolicy, metrics: Metrics
) -> Mapping[str, ProviderEndpoint]:
    """Build the endpoints below `provider.authorize_path`: none without the grant that needs
    them."""
    if AUTHORIZATION_CODE not in config.provider.grant_types:
        return {}
    # Imported here, with its templates: most gateways have no pages.
    from gateway.oauth.endpoints.authorize import Branding, authorization_endpoints
    from gateway.web.assets import load_picture

    users = config.provider.users
    logo = users.pages.logo
    return authorization_endpoints(
        provider.server,
        policy,
        seal=provider.seal,
        sessions=provider.server.users.sessions(ttl_s=users.session_ttl),
        consents=Consents(provider.store.records, ttl_s=users.consent_ttl or None),
        limiter=provider.limiter,
        metrics=metrics,
        upstream=_upstream(config, provider, policy),
        branding=Branding(
            title=users.pages.title or "",
            logo=load_picture(Path(logo)) if logo else None,
            scopes=users.pages.scopes,
        ),
    )


def _upstream(
    config: Config, provider: Provider, policy: ProviderPolicy
) -> UpstreamProvider | None:
    users = config.provider.users
    if users.source != "oidc" or users.oidc is None:
        return None
    # Imported here, like what fetches.
    from gateway.oauth.endpoints.authorize.pages import CALLBACK

    oidc = users.oidc
    settings = derive(
        UpstreamSettings,
        oidc,
        redirect_uri=policy.url(policy.authorize_path + CALLBACK),
    )
    fetcher = provider.fetcher
    return UpstreamProvider(settings, fetcher.get, fetcher.post_form, provider.remote_keys)
