"""Cross-origin requests to the provider: which pages may read its responses.

Public documents are for all. Endpoints are for the origins that the operator lists, and for those
of registered redirect URIs: a page that may get a code may redeem it. Cookies play no part:
credentials are never allowed, so a page can use here only what it was given.

Fetch standard, section 3.3 (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection

from cachetools import TTLCache

from gateway.http.fields import header_values
from gateway.oauth.browser_origins import BrowserOrigins
from gateway.oauth.endpoints.http import EndpointRequest, EndpointResponse, Headers
from gateway.oauth.errors import OAuthError
from gateway.oauth.models import Clock, StoreUnavailableError
from gateway.oauth.policy import AUTHORIZATION_CODE, ProviderPolicy
from gateway.oauth.self_registration import may_register_origin

CACHE_S = 10.0
CACHE_ENTRIES = 10_000
MAX_ORIGIN_CHARS = 300
EXPOSED = "DPoP-Nonce, Retry-After, WWW-Authenticate"
MAX_AGE = "600"
_FIELD_NAMES = re.compile(r"[A-Za-z0-9-]+(?:[ \t]*,[ \t]*[A-Za-z0-9-]+)*")
MAX_FIELD_NAMES_CHARS = 1000
ALLOWED_FIELDS = "Authorization, Content-Type, DPoP"


class OriginError(OAuthError):
    """A page of this origin may not call the endpoint."""

    status = 403
    error = "access_denied"
    default_description = "This origin is not allowed: see provider.cors."

    def __init__(self) -> None:
        super().__init__(reason="cors_origin")


class ProviderCors:
    """Adds the CORS fields to responses, and responds to preflights."""

    def __init__(
        self, policy: ProviderPolicy, origins: BrowserOrigins, *, clock: Clock = time.monotonic
    ) -> None:
        self._policy = policy
        self._listed = policy.cors_origins
        self._has_pages = AUTHORIZATION_CODE in policy.grant_types
        self._origins = origins
        self._known: TTLCache[str, bool] = TTLCache(CACHE_ENTRIES, CACHE_S, timer=clock)

    async def preflight(
        self, request: EndpointRequest, methods: Collection[str], *, is_public: bool
    ) -> EndpointResponse:
        """Return the permission that a preflight asks for. Raises `OriginError`."""
        allowed = await self._allow(request, is_public=is_public)
        if not allowed:
            raise OriginError
        fields = header_values(request.headers, b"access-control-request-headers")
        requested = b",".join(fields).decode("latin-1")
        is_list = len(requested) <= MAX_FIELD_NAMES_CHARS and _FIELD_NAMES.fullmatch(requested)
        return EndpointResponse(
            204,
            (
                *allowed,
                ("Access-Control-Allow-Methods", ", ".join(sorted(methods))),
                ("Access-Control-Allow-Headers", requested if is_list else ALLOWED_FIELDS),
                ("Access-Control-Max-Age", MAX_AGE),
            ),
            b"",
            "cors_preflight",
        )

    async def fields(self, request: EndpointRequest, *, is_public: bool) -> Headers:
        """Return the fields of a response; none where the request is not from another origin."""
        allowed = await self._allow(request, is_public=is_public)
        return (*allowed, ("Access-Control-Expose-Headers", EXPOSED)) if allowed else ()

    async def _allow(self, request: EndpointRequest, *, is_public: bool) -> Headers:
        if is_public:
            return (("Access-Control-Allow-Origin", "*"),)
        if request.path == self._policy.introspect_path:
            return ()  # for resource servers, which are no pages
        values = header_values(request.headers, b"origin")
        if len(values) != 1 or len(values[0]) > MAX_ORIGIN_CHARS:
            return ()
        origin = values[0].decode("latin-1")
        if (
            not self._is_listed(origin)
            and not (request.path == self._policy.register_path and self._may_register(origin))
            and not await self._is_registered(origin)
        ):
            return ()
        return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))

    def _is_listed(self, origin: str) -> bool:
        for listed in self._listed:
            scheme, mark, below = listed.partition("://*")
            is_below = origin.startswith(f"{scheme}://") and origin.endswith(below)
            if listed in {"*", origin} or (mark and is_below and len(origin) > len(listed) - 1):
                return True
        return False

    def _may_register(self, origin: str) -> bool:
        """Whether a page could register a redirect URI of its own origin, by a call from any
        server, too."""
        return self._policy.registration_mode == "public" and may_register_origin(
            origin, self._policy
        )

    async def _is_registered(self, origin: str) -> bool:
        if not self._has_pages or "://" not in origin:
            return False
        if origin not in self._known:
            try:
                self._known[origin] = await self._origins.know(origin)
            except StoreUnavailableError:
                return False  # the response says so, too
        return self._known.get(origin, False)


def is_preflight(request: EndpointRequest) -> bool:
    """Whether a browser asks whether a page may call."""
    return request.method == "OPTIONS" and all(
        len(header_values(request.headers, name)) == 1
        for name in (b"origin", b"access-control-request-method")
    )
