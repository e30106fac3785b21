"""Cross-origin resource sharing: which pages of other origins may call, and how.

It is a browser that enforces this, for the sake of its user; it keeps no client
else out. What an upstream says about it is dropped, so that there is one response.

Fetch standard, section 3.3 (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.http.errors import Headers
from gateway.patterns import Pattern
from gateway.proxy.conditions import Fields

FIELDS = frozenset(
    {
        b"access-control-allow-origin", b"access-control-allow-methods",
        b"access-control-allow-headers", b"access-control-allow-credentials",
        b"access-control-expose-headers", b"access-control-max-age",
    }
)  # fmt: skip
"""What an upstream may not say beside us."""

_SUBDOMAIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def is_preflight(request: Fields) -> bool:
    """Whether an OPTIONS request asks for permission."""
    return bool(request.header_values(b"origin")) and requested_method(request) is not None


def requested_method(request: Fields) -> str | None:
    """The method that a preflight asks about; None where it is none."""
    values = request.header_values(b"access-control-request-method")
    return values[0].decode("latin-1") if len(values) == 1 else None


def _origin(request: Fields) -> str | None:
    values = request.header_values(b"origin")
    return values[0].decode("latin-1") if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class Cors:
    """The rules of a route, compiled."""

    origins: frozenset[str] = frozenset()
    below: Sequence[tuple[str, str]] = ()
    """Of `https://*.example.com:8443`: `https://` and `.example.com:8443`."""
    patterns: Sequence[Pattern] = ()
    takes_any_origin: bool = False
    methods: frozenset[str] = frozenset()
    headers: str = ""
    exposed: str = ""
    credentials: bool = False
    max_age_s: float = 0.0

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin may call."""
        if self.takes_any_origin or origin in self.origins:
            return True
        for scheme, suffix in self.below:
            name = origin.removeprefix(scheme).removesuffix(suffix)
            if f"{scheme}{name}{suffix}" == origin and _SUBDOMAIN.fullmatch(name):
                return True
        return any(pattern.fullmatch(origin) for pattern in self.patterns)

    def fields(self, request: Fields) -> Headers:
        """Return the CORS fields of a response. A cache must not give it to another origin."""
        if self.takes_any_origin:
            return (("Access-Control-Allow-Origin", "*"), *self._exposed())
        origin = _origin(request)
        if origin is None or not self.allows(origin):
            return (("Vary", "Origin"),)
        return (
            ("Access-Control-Allow-Origin", origin),
            *self._allow_credentials(),
            *self._exposed(),
            ("Vary", "Origin"),
        )

    def preflight_fields(self, request: Fields) -> Headers | None:
        """The permission that a preflight asks for; None for another origin."""
        origin = _origin(request)
        if origin is None or not self.allows(origin):
            return None
        permission = [("Access-Control-Allow-Methods", ", ".join(sorted(self.methods)))]
        if self.headers:
            permission.append(("Access-Control-Allow-Headers", self.headers))
        if self.max_age_s:
            permission.append(("Access-Control-Max-Age", f"{self.max_age_s:.0f}"))
        return tuple(permission)

    def _allow_credentials(self) -> Headers:
        return (("Access-Control-Allow-Credentials", "true"),) if self.credentials else ()

    def _exposed(self) -> Headers:
        return (("Access-Control-Expose-Headers", self.exposed),) if self.exposed else ()
