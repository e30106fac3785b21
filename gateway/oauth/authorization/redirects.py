"""Redirect URIs of responses: one that the client registered, compared character by character.

The one exception is the port of a native application on this host (RFC 8252 section 7.3,
RFC 9700 section 2.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlencode, urlsplit

from gateway.oauth.client_metadata import is_loopback

MAX_PORT = 65535
_PORT = re.compile(r"[0-9]{1,5}")


def matches(registered: str, given: str) -> bool:
    """Whether a redirect URI is the one that was registered."""
    if given == registered:
        return True
    one, other = _without_port(registered), _without_port(given)
    return one is not None and one == other


def choose_redirect(registered: Sequence[str], given: str | None) -> str | None:
    """The redirect URI to use; None where the one given is not registered, or none was given and
    there is not exactly one that could be meant. One that is no ASCII can't be in a field: it was
    registered before that was checked."""
    registered = [uri for uri in registered if uri.isascii()]
    if given is None:
        return registered[0] if len(registered) == 1 else None
    return given if any(matches(uri, given) for uri in registered) else None


def is_claimed_by_a_site(redirect_uri: str) -> bool:
    """Whether only who controls a web site can get what is sent there: by https. Any application
    on the device may listen on a loopback port or take a scheme (RFC 8252 section 8.6)."""
    return urlsplit(redirect_uri).scheme == "https"


def redirect_location(redirect_uri: str, parameters: Iterable[tuple[str, str]]) -> str:
    """The redirect URI with a response; a query of its own stays (RFC 6749 section 3.1.2)."""
    joint = "&" if "?" in redirect_uri else "?"
    if redirect_uri.endswith(("?", "&")):
        joint = ""
    return f"{redirect_uri}{joint}{urlencode(list(parameters))}"


def _without_port(uri: str) -> tuple[str, str, str] | None:
    """A loopback URI without its port; None for any other. Taken apart by hand: what a library
    repairs must not match."""
    scheme, separator, rest = uri.partition("://")
    if scheme != "http" or not separator:
        return None
    authority, slash, tail = rest.partition("/")
    if not slash:
        authority, mark, tail = rest.partition("?")
        slash = mark
    host, port = authority, ""
    if authority.startswith("["):
        host, bracket, after = authority.partition("]")
        host = host[1:]
        if not bracket or (after and not after.startswith(":")):
            return None
        port = after[1:] if after else "80"
    elif ":" in authority:
        host, _, port = authority.partition(":")
    else:
        port = "80"
    if not _PORT.fullmatch(port) or int(port) > MAX_PORT or not is_loopback(host):
        return None
    return host, slash, tail
