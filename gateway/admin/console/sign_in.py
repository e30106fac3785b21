"""Sign in and out."""

from __future__ import annotations

from aiohttp import web

from gateway.addresses import source_of
from gateway.admin.console.site import ROOT, Site, Visit, is_own_path, read_form, redirect
from gateway.history.events import Events
from gateway.oauth.credentials import random_text
from gateway.web.csrf import FIELD

BROWSER = "gateway_sign_in"
"""The cookie that binds the form to the browser, before there is a session."""


class SignIn:
    """The pages with which a session begins and ends."""

    def __init__(self, site: Site, events: Events) -> None:
        self._site = site
        self._events = events

    def add_routes(self) -> None:
        """Make the pages known."""
        self._site.add_open("GET", "/sign-in", self._show)
        self._site.add_open("POST", "/sign-in", self._sign_in)
        self._site.add_form("/sign-out", self._sign_out)

    async def _show(self, request: web.Request) -> web.Response:
        if await self._site.visitor(request) is not None:
            return redirect("")
        return self._form(request, _next(request.query.get("next")))

    async def _sign_in(self, request: web.Request) -> web.Response:
        site, form = self._site, await read_form(request)
        name, back = form.get("name", "").strip()[:64], _next(form.get("next"))
        browser = site.cookie(request, BROWSER).read(request.raw_headers)
        if not site.form_tokens.is_valid(form.get(FIELD), browser, "sign-in"):
            return self._form(request, back, "The form was too old. Try again.", 403)
        address = site.source(request)
        network = source_of(address)
        users, password = site.accounts.users, form.get("password", "")
        user = await site.accounts.sign_ins.attempt(
            name, network, lambda: users.verify(name, password, source=network)
        )
        if isinstance(user, int):
            minutes = max(1, round(user / 60))
            text = f"Too many failed attempts. Try again in {minutes} min."
            response = self._form(request, back, text, 429)
            response.headers["Retry-After"] = str(user)
            return response
        if user is None:
            self._events.add(
                "login", "console sign-in failed", status=401, who=name, address=address
            )
            return self._form(request, back, "Name or password is wrong.", 401, name)
        old_secret = site.cookie(request).read(request.raw_headers)
        session = await users.sessions.begin(user, old_secret=old_secret)
        await site.accounts.audit.note(user.name, address, "session.begin")
        response = redirect(back.removeprefix(ROOT))
        _set(response, site.cookie(request).set(session.secret))
        _set(response, site.cookie(request, BROWSER).clear())
        return response

    async def _sign_out(self, visit: Visit) -> web.Response:
        await self._site.accounts.users.sessions.end(visit.session.secret)
        actor = visit.actor
        await self._site.accounts.audit.note(actor.name, actor.address, "session.end")
        response = redirect("/sign-in")
        _set(response, self._site.cookie(visit.request).clear())
        return response

    def _form(
        self, request: web.Request, back: str, error: str = "", status: int = 200, name: str = ""
    ) -> web.Response:
        cookie = self._site.cookie(request, BROWSER)
        browser = cookie.read(request.raw_headers) or random_text(32)
        response = self._site.render_for(
            request,
            "sign_in.html",
            status=status,
            error=error,
            name=name,
            next=back,
            form_token=self._site.form_tokens.make(browser, "sign-in"),
        )
        _set(response, cookie.set(browser))
        return response


def _next(path: str | None) -> str:
    """Return the page to show after signing in: one of the console, and nowhere else."""
    return path if path and is_own_path(path) else ROOT


def _set(response: web.Response, field: tuple[str, str]) -> None:
    response.headers.add(*field)
