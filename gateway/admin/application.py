"""The application of the admin listener."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from aiohttp import web

from gateway.admin.account_actions import AdminAccountActions, UserActions
from gateway.admin.accounts import Accounts
from gateway.admin.accounts_api import AdminAccountsApi
from gateway.admin.actions import AdminActions
from gateway.admin.api import ClientsApi
from gateway.admin.api_keys_api import ApiKeysApi
from gateway.admin.authentication import Source, require_token
from gateway.admin.console import add_console
from gateway.admin.hosts import require_host
from gateway.admin.index import IndexApi
from gateway.admin.openapi import openapi_document
from gateway.admin.operations import operations_of, serve
from gateway.admin.probes import ProbesApi, RenderMetrics
from gateway.admin.problems import render_problems
from gateway.admin.status import GatewayStatus
from gateway.admin.status_api import LogLevel, StatusApi
from gateway.admin.traffic_api import TrafficApi
from gateway.admin.users_api import UsersApi
from gateway.oauth.models import Clock
from gateway.oauth.server import AuthorizationServer

MAX_BODY_BYTES = 64 * 1024


def _without_traceback(record: logging.LogRecord) -> bool:
    # aiohttp logs requests that it can't parse, and the traceback holds the offending line, which
    # may well be an Authorization header.
    record.exc_info = record.exc_text = None
    return True


def create_admin_app(
    *,
    server: AuthorizationServer,
    accounts: Accounts,
    gateway_status: GatewayStatus,
    render_metrics: RenderMetrics,
    log_level: LogLevel,
    admin_token: Callable[[], str | None],
    hosts: Callable[[], Collection[str]],
    source: Source,
    has_store: bool = True,
    wall_clock: Clock = time.time,
) -> web.Application:
    """The application of the admin listener.

    `render_metrics` makes the page in Prometheus' text format. `facts` are about the gateway
    as a whole. `admin_token` is asked with each request for one that the API takes beside those
    of `accounts`; `hosts` for the names that the listener is known by. `source` returns
    the address that a request came from. Without a store, there are neither clients nor a
    console, whose users and sessions are kept there.
    """
    logging.getLogger("aiohttp.server").addFilter(_without_traceback)
    actions = AdminActions(server, accounts.audit)
    account_actions = AdminAccountActions(accounts)
    user_actions = UserActions(server.users, accounts.audit)
    apis = (
        IndexApi(accounts, admin_token, has_store=has_store),
        ProbesApi(
            gateway_status, render_metrics, lambda: openapi_document(operations, server.policy)
        ),
        *(
            [
                ClientsApi(server, actions, wall_clock=wall_clock),
                ApiKeysApi(server, actions),
                AdminAccountsApi(account_actions),
                UsersApi(user_actions),
            ]
            if has_store
            else []
        ),
        StatusApi(gateway_status, log_level, accounts.audit),
        TrafficApi(gateway_status, wall_clock=wall_clock),
    )
    operations = [declared for api in apis for declared in operations_of(api)]

    app = web.Application(
        middlewares=[
            render_problems,
            require_host(hosts),
            require_token(accounts.tokens, admin_token=admin_token, source=source),
        ],
        client_max_size=MAX_BODY_BYTES,
    )
    for declared, handler in operations:
        serve(app.router, declared, handler)
    if not has_store:
        return app
    add_console(
        app,
        server=server,
        actions=actions,
        account_actions=account_actions,
        user_actions=user_actions,
        gateway_status=gateway_status,
        render_metrics=render_metrics,
        source=source,
        wall_clock=wall_clock,
    )
    return app
