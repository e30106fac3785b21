"""Common handling of the console's pages: session, form tokens, errors as pages."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp_jinja2
from aiohttp import web

from gateway import __version__
from gateway.admin.accounts import Accounts, Actor
from gateway.admin.accounts.users import AdminUser
from gateway.admin.authentication import Source
from gateway.admin.console import charts
from gateway.admin.console.reasons import explain_reason
from gateway.admin.operations import any_segment
from gateway.admin.problems import ApiError
from gateway.http.accept import quality
from gateway.oauth.accounts import Session
from gateway.oauth.errors import OAuthError
from gateway.oauth.models import Clock, StoreUnavailableError
from gateway.web.assets import Asset, load_icon, load_script, load_stylesheet
from gateway.web.cookies import SecretCookie
from gateway.web.csrf import FIELD, FormTokens
from gateway.web.headers import page_headers
from gateway.web.templating import make_environment

ROOT = "/console"
PACKAGE = "gateway.admin.console"
MAX_FORM_FIELDS = 1000
OFF = "The console is off until there is an admin user"
COOKIE = "gateway_console"
_HEADERS = dict(page_headers(has_script=True))
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of a signed-in user."""

    request: web.Request
    actor: Actor
    session: Session[AdminUser]
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The fields of a form, which is one of ours."""

    def text(self, name: str) -> str:
        """A field of the form, without the space around it."""
        return self.form.get(name, "").strip()


Page = Callable[[Visit], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """Adds pages to the application, and renders them."""

    def __init__(
        self, app: web.Application, accounts: Accounts, *, source: Source, wall_clock: Clock
    ) -> None:
        self.accounts = accounts
        self.source = source
        self.wall_clock = wall_clock
        self._app = app
        # Without a key of ours: who knows the value of the cookie is the browser it is for.
        self.form_tokens = FormTokens(
            lambda message: hmac.digest(b"gateway console", message, hashlib.sha256)
        )
        shared, own = load_stylesheet(), load_stylesheet(PACKAGE, "console")
        script, icon = load_script(PACKAGE, "console"), load_icon(PACKAGE, "icon")
        for asset in (shared, own, script, icon):
            app.router.add_get(_asset_url(asset), _serve(asset))
        environment = make_environment(PACKAGE)
        environment.globals.update(
            product="bearer-gateway",
            version=__version__,
            stylesheet=_asset_url(shared),
            console_stylesheet=_asset_url(own),
            script=_asset_url(script),
            icon=_asset_url(icon),
            root=ROOT,
            form_field=FIELD,
        )
        environment.filters.update(
            number=charts.number,
            percent=charts.percent,
            duration=charts.duration,
            when=_when,
            ago=self._ago,
            segment=lambda text: quote(text, safe=""),
            reason=explain_reason,
        )
        app[aiohttp_jinja2.APP_KEY] = environment

    def add_page(self, path: str, page: Page) -> None:
        """A page for who has signed in."""
        self._app.router.add_get(any_segment(ROOT + path), self.guarded(self._for_visitor(page)))

    def add_form(self, path: str, page: Page) -> None:
        """Serve the target of a form, for signed-in users."""
        self._app.router.add_post(any_segment(ROOT + path), self.guarded(self._for_visitor(page)))

    def add_open(self, method: str, path: str, handler: Handler) -> None:
        """Serve a public page, if there is a console at all."""
        self._app.router.add_route(method, ROOT + path, self.guarded(handler))

    def add_rest(self) -> None:
        """Whatever else is asked for is not there, and a page says so. Comes last."""

        async def explain_request(request: web.Request) -> web.StreamResponse:
            raise web.HTTPNotFound

        self.add_open("GET", "/{rest:.*}", explain_request)

    def guarded(self, handler: Handler) -> Handler:
        """A handler that is there only if there is a console, and whose errors are pages."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if await self.accounts.users.exist():
                    return await handler(request)
            except web.HTTPNotFound:
                return await self._not_found(request)
            except (ApiError, OAuthError) as error:
                detail = error.detail if isinstance(error, ApiError) else error.description
                return self._problem(request, error.status, detail)
            except StoreUnavailableError:
                return self._problem(request, 503, "The store does not respond. Try again soon.")
            return self._off(request)

        return handle

    async def _not_found(self, request: web.Request) -> web.Response:
        """Respond with a page that keeps the navigation of who has signed in."""
        detail = "There is no such page."
        try:
            visit = await self.visitor(request, is_use=False)
        except (ApiError, StoreUnavailableError):
            visit = None
        if visit is None:
            return self._problem(request, 404, detail)
        title = HTTPStatus(404).phrase
        return self.render("problem.html", visit, status=404, title=title, detail=detail, home=ROOT)

    def _off(self, request: web.Request) -> web.Response:
        """Respond where there is no console: clients of the admin listener may know how to enable
        it."""
        if prefers_page(request):
            return self._problem(
                request, 404, f"{OFF}: gateway admin create NAME -c FILE", home="/"
            )
        raise ApiError(404, "console_off", f"{OFF}: run `gateway admin create`.")

    def _for_visitor(self, page: Page) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            visit = await self.visitor(request)
            if visit is None:
                return self.to_sign_in(request)
            if request.method == "POST":
                token = visit.form.get(FIELD)
                if not self.form_tokens.is_valid(token, visit.session.secret, "console"):
                    raise ApiError(403, "form_token", "This form was not made for you.")
            return await page(visit)

        return handle

    async def visitor(self, request: web.Request, *, is_use: bool = True) -> Visit | None:
        """Return the user of a request; None without a session."""
        secret = self.cookie(request).read(request.raw_headers)
        session = await self.accounts.users.sessions.find(secret, is_use=is_use)
        if session is None:
            return None
        actor = Actor(session.user.name, session.user.role, self.source(request))
        form = await read_form(request) if request.method == "POST" else {}
        return Visit(request, actor, session, form)

    def cookie(self, request: web.Request, name: str = COOKIE) -> SecretCookie:
        """The cookie of a session. Secure where the browser says https, which a proxy may report
        us: to believe it makes the cookie stricter, never laxer."""
        is_secure = "https" in {request.scheme, request.headers.get("X-Forwarded-Proto")}
        return SecretCookie(name, is_secure=is_secure, same_site="Strict")

    def render(
        self, template: str, visit: Visit, *, status: int = 200, **values: Any
    ) -> web.Response:
        """Render a page for a signed-in user."""
        return self.render_for(
            visit.request,
            template,
            status=status,
            user=visit.actor.name,
            is_operator=visit.actor.is_operator,
            form_token=self.form_tokens.make(visit.session.secret, "console"),
            path=visit.request.path,
            **values,
        )

    def render_for(
        self, request: web.Request, template: str, *, status: int = 200, **values: Any
    ) -> web.Response:
        """Render a public page."""
        return render_page(request, template, status=status, **values)

    def to_sign_in(self, request: web.Request) -> web.Response:
        """Off to the sign-in page, and back to here afterwards."""
        back = request.rel_url.raw_path_qs if request.method == "GET" else ROOT
        return redirect(f"/sign-in?next={quote(back, safe='')}")

    def _problem(
        self, request: web.Request, status: int, detail: str, *, home: str = ROOT
    ) -> web.Response:
        title = HTTPStatus(status).phrase
        return self.render_for(
            request, "problem.html", status=status, title=title, detail=detail, home=home
        )

    def _ago(self, at: float | None) -> str:
        return "never" if at is None else ago(self.wall_clock() - at)


_KEY = aiohttp_jinja2.APP_KEY


def render_page(
    request: web.Request, template: str, *, status: int = 200, **values: Any
) -> web.Response:
    """Render a public page, once there is a `Site` in the application."""
    values = {"user": None, "is_operator": False, "form_token": "", "path": "", **values}
    text = aiohttp_jinja2.render_string(template, request, values, app_key=_KEY)
    return web.Response(body=text.encode("utf-8", "replace"), status=status, headers=_HEADERS)


def prefers_page(request: web.Request) -> bool:
    """Whether a request comes from a browser that opens a page: programs don't ask for HTML."""
    return quality(request.headers.get("Accept", ""), "text/html", named=True) > 0


def redirect(path: str) -> web.Response:
    """A response that leads to a page of the console, by GET."""
    return web.Response(status=303, headers={**_HEADERS, "Location": ROOT + path})


def is_own_path(path: str) -> bool:
    """Whether a path leads to a page of the console, and nowhere else."""
    parts = urlsplit(path)
    return (
        not parts.scheme
        and not parts.netloc
        and (parts.path == ROOT or parts.path.startswith(ROOT + "/"))
        and path.isascii()
        and path.isprintable()
        and "\\" not in path
    )


async def read_form(request: web.Request) -> dict[str, str]:
    """The fields of a form. Raises `ApiError` for anything else."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in {"same-origin", "none"}:
        raise ApiError(403, "other_site", "Forms come from this site only.")
    if request.content_type != "application/x-www-form-urlencoded":
        raise ApiError(415, "content_type", "This is not a form.")
    try:
        fields = await request.post()
    except (LookupError, ValueError):
        # The charset of the content type is unknown, or none of text; or this is not of it.
        raise ApiError(400, "form", "The form can't be read.") from None
    if len(fields) > MAX_FORM_FIELDS:
        raise ApiError(400, "form", "The form has too many fields.")
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def ago(seconds: float) -> str:
    """How long ago, in one unit."""
    if seconds < 5:
        return "just now"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    raise AssertionError


def _when(at: float | None) -> str:
    if at is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def _asset_url(asset: Asset) -> str:
    return f"{ROOT}/static/{asset.name}"


def _serve(asset: Asset) -> Handler:
    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=asset.body, headers=dict(asset.headers))

    return serve
