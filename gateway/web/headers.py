"""The header fields of a page: it runs no script, is in no frame, and is kept by no cache."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

_SOURCE_HOST = re.compile(r"[A-Za-z0-9._~-]+(?::[0-9]*)?")

Headers = tuple[tuple[str, str], ...]

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action "
)


def page_headers(*, form_action: Iterable[str] = (), has_script: bool = False) -> Headers:
    """The header fields of a page. Its forms may go to us and to the sources in `form_action`:
    browsers also ask that of where they are redirected to after a form. With `has_script` it
    may run script files of ours, and those may talk to us."""
    script = "script-src 'self'; connect-src 'self'; " if has_script else ""
    policy = script + _POLICY + " ".join(("'self'", *form_action))
    return (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", policy),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        # What browsers go by that don't know `frame-ancestors`.
        ("X-Frame-Options", "DENY"),
    )


def csp_source(url: str) -> str:
    """A URL as a source of a Content-Security-Policy: its origin, or its scheme where the policy
    can't write the origin down (IPv6 addresses, schemes of applications, `;`, which would begin
    another directive)."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not _SOURCE_HOST.fullmatch(parts.netloc):
        return f"{parts.scheme}:"
    return f"{parts.scheme}://{parts.netloc}"
