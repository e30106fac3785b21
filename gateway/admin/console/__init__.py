"""The console: pages for the operators of the gateway, at `/console`.

Rendered here, on the admin listener; everything works without script, and what is live is
better with it. Off (404) until there is an admin user.
"""

from __future__ import annotations

from aiohttp import web

from gateway.admin.account_actions import AdminAccountActions, UserActions
from gateway.admin.actions import AdminActions
from gateway.admin.authentication import Source
from gateway.admin.console.account_pages import AccessPage
from gateway.admin.console.admin_account_pages import AdminTokenPages, AdminUserPages
from gateway.admin.console.api_key_pages import ApiKeyPages
from gateway.admin.console.client_form_pages import ClientFormPages
from gateway.admin.console.client_pages import ClientPages
from gateway.admin.console.configuration_pages import ConfigurationPages
from gateway.admin.console.live import Live
from gateway.admin.console.sign_in import SignIn
from gateway.admin.console.site import Site
from gateway.admin.console.status_pages import StatusPages
from gateway.admin.console.token_pages import TokenPages
from gateway.admin.console.traffic_pages import TrafficPages
from gateway.admin.console.user_pages import UserPages
from gateway.admin.probes import RenderMetrics
from gateway.admin.status import GatewayStatus
from gateway.oauth.models import Clock
from gateway.oauth.server import AuthorizationServer


def add_console(
    app: web.Application,
    *,
    server: AuthorizationServer,
    actions: AdminActions,
    account_actions: AdminAccountActions,
    user_actions: UserActions,
    gateway_status: GatewayStatus,
    render_metrics: RenderMetrics,
    source: Source,
    wall_clock: Clock,
) -> None:
    """Add the console to the application of the admin listener. `source` returns the address that
    a request came from."""
    site = Site(app, account_actions.accounts, source=source, wall_clock=wall_clock)
    SignIn(site, gateway_status.recent.events).add_routes()
    status = StatusPages(site, gateway_status, render_metrics)
    status.add_routes()
    Live(site, gateway_status, status).add_routes()
    TrafficPages(site, gateway_status).add_routes()
    ClientFormPages(site, server, actions).add_routes()
    ClientPages(site, server, actions, gateway_status).add_routes()
    ApiKeyPages(site, server, actions).add_routes()
    TokenPages(site, server, actions).add_routes()
    ConfigurationPages(site, gateway_status).add_routes()
    AccessPage(site, account_actions, user_actions).add_routes()
    AdminUserPages(site, account_actions).add_routes()
    AdminTokenPages(site, account_actions).add_routes()
    UserPages(site, user_actions).add_routes()
    site.add_rest()
