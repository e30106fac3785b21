"""Somebody with a browser, who signs in and allows what clients ask for; on real sockets."""

from __future__ import annotations

from urllib.parse import urljoin

import httpx
from support.clients.web_forms import Page

USERNAME = "alice"
PASSWORD = "correct horse battery"


def allow(url: str, *, username: str = USERNAME, password: str = PASSWORD) -> str:
    """Follow a client's link to the provider, fill the forms in, and press the first button of
    each; returns the URL at the client at which that ends."""
    with httpx.Client() as browser:
        return allow_with(browser, url, username=username, password=password)


def allow_with(
    browser: httpx.Client, url: str, *, username: str = USERNAME, password: str = PASSWORD
) -> str:
    """The same in a browser that may be signed in already."""
    home = httpx.URL(url).netloc
    response = browser.get(url)
    for _ in range(8):
        here = str(response.url)
        if response.status_code == 303:
            location = urljoin(here, response.headers["Location"])
            if httpx.URL(location).netloc != home:
                return location
            response = browser.get(location)
            continue
        assert response.status_code == 200, response.text
        form = Page(response.text).form
        fields = form.fields | dict(form.buttons[:1])
        if "password" in fields:
            fields |= {"username": username, "password": password}
        response = browser.post(urljoin(here, form.action), data=fields)
    raise AssertionError("this does not come to an end")
