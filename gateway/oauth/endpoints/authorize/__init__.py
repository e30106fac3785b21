"""The authorization endpoint: the paths that users visit, and what serves them.

Imported only where the authorization code grant is given: it brings the templates along.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from gateway.metrics import Metrics
from gateway.oauth.endpoints.authorize.authorize import (
    AuthorizeEndpoint,
    ConsentEndpoint,
    SignOutEndpoint,
)
from gateway.oauth.endpoints.authorize.flow import Flow, FlowStep
from gateway.oauth.endpoints.authorize.pages import (
    CALLBACK,
    CONSENT,
    SIGN_IN,
    SIGN_OUT,
    AuthorizationPages,
    Branding,
)
from gateway.oauth.endpoints.authorize.sign_in import SignInEndpoint
from gateway.oauth.endpoints.authorize.upstream import UpstreamSignIn
from gateway.oauth.endpoints.http import EndpointRequest, EndpointResponse
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Clock
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.server import AuthorizationServer
from gateway.oauth.users import UserSessions
from gateway.oauth.users.consents import Consents
from gateway.oauth.users.upstream import UpstreamProvider
from gateway.web.assets import Asset
from gateway.web.csrf import FormTokens

__all__ = ["Branding", "authorization_endpoints"]

NO_BRANDING = Branding()


def authorization_endpoints(
    server: AuthorizationServer,
    policy: ProviderPolicy,
    *,
    seal: Seal,
    sessions: UserSessions,
    consents: Consents,
    limiter: FailedClientLimiter,
    metrics: Metrics,
    upstream: UpstreamProvider | None = None,
    branding: Branding = NO_BRANDING,
    wall_clock: Clock = time.time,
) -> dict[str, FlowStep | StaticFile]:
    """Return the endpoints below `authorize_path`, by path. With `upstream`, users sign in
    there."""
    pages = AuthorizationPages(policy, FormTokens(seal.mac), branding)
    flow = Flow(server, policy, sessions, consents, pages, limiter, metrics)
    path = policy.authorize_path
    endpoints: dict[str, FlowStep | StaticFile] = {
        path + CONSENT: ConsentEndpoint(flow),
        path + SIGN_OUT: SignOutEndpoint(flow),
        pages.stylesheet_path: StaticFile(pages.stylesheet),
    }
    if pages.logo is not None:
        endpoints[pages.logo_path] = StaticFile(pages.logo)
    if upstream is None:
        sign_in = SignInEndpoint(flow)
        endpoints |= {path: AuthorizeEndpoint(flow, sign_in), path + SIGN_IN: sign_in}
    else:
        elsewhere = UpstreamSignIn(flow, upstream, seal, wall_clock=wall_clock)
        endpoints |= {path: AuthorizeEndpoint(flow, elsewhere), path + CALLBACK: elsewhere}
    return endpoints


@dataclass(frozen=True, slots=True)
class StaticFile:
    """Serves a file of the pages."""

    asset: Asset

    @property
    def methods(self) -> frozenset[str]:
        """The methods it takes."""
        return frozenset({"GET", "HEAD"})

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """The file."""
        return EndpointResponse(200, self.asset.headers, self.asset.body)
