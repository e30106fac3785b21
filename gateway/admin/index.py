"""The root of the admin listener: what there is to see here, and how to switch on what is off."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from gateway.admin.accounts import Accounts
from gateway.admin.console.site import ROOT as CONSOLE
from gateway.admin.console.site import prefers_page, render_page
from gateway.admin.operations import PREFIX, Call, operation
from gateway.oauth.models import StoreUnavailableError

DOCUMENTATION = "https://github.com/bearer-gateway/bearer-gateway/tree/main/docs"


class Link(TypedDict):
    """Something to see."""

    href: str
    title: str
    description: str


class Index(TypedDict):
    """The links of the root."""

    links: list[Link]


class IndexApi:
    """The root: a page for browsers, JSON for programs."""

    def __init__(
        self,
        accounts: Accounts,
        admin_token: Callable[[], str | None],
        *,
        has_store: bool = True,
    ) -> None:
        self._accounts = accounts
        self._has_store = has_store
        self._admin_token = admin_token

    @operation("GET", "/")
    async def show_index(self, call: Call) -> Index:
        """List what the admin listener serves; a page where HTML is accepted."""
        index = Index(links=await self._links())
        if prefers_page(call.request):
            # Not what the annotation says, which is for programs.
            return render_page(call.request, "index.html", **index, api=PREFIX)  # type: ignore[return-value]
        return index

    async def _links(self) -> list[Link]:
        if not self._has_store:
            state = "on" if self._admin_token() else "off until admin.token is set"
            api = f"Routes, upstreams and reloads for programs; {state}. There is no store."
            return [*_PROBES, _link(PREFIX, "Admin API", api), *_DOCUMENTS]
        console = "Pages for operators: traffic, clients, tokens, events."
        api = "Clients, tokens, routes and upstreams for programs; needs a bearer token."
        try:
            if not await self._accounts.users.exist():
                console = "Off until there is an admin user: gateway admin create NAME -c FILE"
            if self._admin_token() is None and not await self._accounts.tokens.exist():
                api = "Off until there is a token: gateway admin token create NAME -c FILE"
        except StoreUnavailableError:
            pass  # whether they are off is not known, and no reason to show nothing
        return [
            _link(CONSOLE, "Console", console),
            *_PROBES,
            _link(PREFIX, "Admin API", api),
            *_DOCUMENTS,
        ]


def _link(href: str, title: str, description: str) -> Link:
    return {"href": href, "title": title, "description": description}


_PROBES = (
    _link("/metrics", "Metrics", "Prometheus and OpenMetrics."),
    _link("/healthz", "Health", "The process lives."),
    _link("/readyz", "Readiness", "Requests can be served, and if not, why."),
)
_DOCUMENTS = (
    _link("/openapi.json", "OpenAPI", "This API and the provider's endpoints."),
    _link(DOCUMENTATION, "Documentation", "How to configure and operate the gateway."),
)
